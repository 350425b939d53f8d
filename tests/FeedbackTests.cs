/// <summary>What SES says and what is read from it: a message in, one Feedback for each recipient out.</summary>
public sealed class FeedbackTests {
    const string Mail = """
        {"timestamp":"2026-11-24T06:59:00Z","messageId":"mail-1","source":"Shop <news@shop.example.com>",
        "destination":["Jane@Example.com"],"commonHeaders":{"subject":"Your offers"},
        "tags":{"ses:configuration-set":["shop"],"campaign":["november"]}}
        """;

    static readonly DateTimeOffset Seven = new(2026, 11, 24, 7, 0, 0, TimeSpan.Zero);

    static SesEvent Read(string message, string id = "sns-1", string type = "Notification") =>
        SesEvent.Read(new(type, id, FakeSns.TopicArn, message, "2026-11-24T08:00:00.123Z", "2", "", ""));

    static Feedback One(string message, string id = "sns-1") => Assert.Single(Read(message, id).Feedback);

    static string[] Addresses(SesEvent read) => [.. read.Feedback.Select(feedback => feedback.Address)];

    static string BounceWith(string members) => $$"""
        {"eventType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"jane@example.com"}],{{members}}},
        "mail":{{Mail}}}
        """;

    public static TheoryData<string, string, string?, string?, string?, string?> Kinds => new()
    {
        { "Bounce", """
            "bounce":{"bounceType":"Permanent","bounceSubType":"NoEmail","timestamp":"2026-11-24T07:00:00Z",
            "bouncedRecipients":[{"emailAddress":"Jane@Example.com","status":"5.1.1","diagnosticCode":"550 unknown"}]}
            """, "Permanent", "NoEmail", "5.1.1", "550 unknown" },
        { "Complaint", """
            "complaint":{"complaintFeedbackType":"abuse","complaintSubType":"OnAccountSuppressionList",
            "userAgent":"FBL/1","timestamp":"2026-11-24T07:00:00Z",
            "complainedRecipients":[{"emailAddress":"Jane@Example.com"}]}
            """, "abuse", "OnAccountSuppressionList", null, "FBL/1" },
        { "Delivery", """
            "delivery":{"timestamp":"2026-11-24T07:00:00Z","recipients":["Jane@Example.com"],"smtpResponse":"250 OK"}
            """, null, null, null, "250 OK" },
        { "DeliveryDelay", """
            "deliveryDelay":{"timestamp":"2026-11-24T07:00:00Z","delayType":"SpamDetected",
            "delayedRecipients":[{"emailAddress":"Jane@Example.com","status":"4.2.2","diagnosticCode":"452 later"}]}
            """, "SpamDetected", null, "4.2.2", "452 later" },
        { "Send", """ "send":{"timestamp":"2026-11-24T07:00:00Z"} """, null, null, null, null },
        { "Reject", """ "reject":{"timestamp":"2026-11-24T07:00:00Z","reason":"Bad content"} """,
            null, null, null, "Bad content" },
        { "Open", """ "open":{"timestamp":"2026-11-24T07:00:00Z","userAgent":"Mozilla/5.0"} """,
            null, null, null, "Mozilla/5.0" },
        { "Click", """
            "click":{"timestamp":"2026-11-24T07:00:00Z","link":"https://shop.example.com/","linkTags":null}
            """, null, null, null, "https://shop.example.com/" },
        { "Rendering Failure", """
            "failure":{"timestamp":"2026-11-24T07:00:00Z","templateName":"order","errorMessage":"no name"}
            """, null, "order", null, "no name" },
        { "Subscription", """
            "subscription":{"contactList":"readers","timestamp":"2026-11-24T07:00:00Z",
            "newTopicPreferences":{"unsubscribeAll":true},"oldTopicPreferences":{"unsubscribeAll":false}}
            """, "unsubscribeAll", null, null, "readers" },
        { "Invented", """ "invented":{"timestamp":"2026-11-24T07:00:00Z"} """, null, null, null, null },
    };

    [Theory, MemberData(nameof(Kinds))]
    public void Every_kind_is_read_with_all_its_fields_in_both_formats(
        string kind, string body, string? type, string? subType, string? status, string? detail) {
        var expected = new Feedback(kind, "jane@example.com", "Jane@Example.com", Seven, type, subType, status, detail,
            false, "mail-1", "Your offers", "Shop <news@shop.example.com>", "shop",
            """{"ses:configuration-set":["shop"],"campaign":["november"]}""", Mail.Trim(), "sns-1");

        Assert.Equal(expected, One($$"""{"eventType":"{{kind}}",{{body}},"mail":{{Mail}}}"""));
        Assert.Equal(expected, One($$"""{"notificationType":"{{kind}}",{{body}},"mail":{{Mail}}}"""));
    }

    [Theory]
    [InlineData("Deployment finished, the shop is back.", "not JSON")]
    [InlineData("", "not JSON")]
    [InlineData("""{"eventType":"Bounce","bounce":{""", "not JSON")]
    [InlineData("""["Bounce"]""", "no eventType or notificationType")]
    [InlineData("\"Bounce\"", "no eventType or notificationType")]
    [InlineData("null", "no eventType or notificationType")]
    [InlineData("""{"AlarmName":"cpu","NewStateValue":"ALARM"}""", "no eventType or notificationType")]
    [InlineData("""{"eventType":null,"notificationType":["Bounce"]}""", "no eventType or notificationType")]
    [InlineData("""{"eventType":"Bounce"}""", "names no recipient")]
    [InlineData("""{"eventType":"Bounce","bounce":[],"mail":"?"}""", "names no recipient")]
    [InlineData("""{"eventType":"Delivery","delivery":{"recipients":[" ",7.5e,""]}}""", "not JSON")]
    [InlineData("""{"eventType":"Delivery","delivery":{"recipients":[" ",null,""]}}""", "names no recipient")]
    public void What_is_no_event_is_unread_and_says_why(string message, string why) {
        var read = Read(message);

        Assert.Equal(why, read.Unread);
        Assert.Empty(read.Feedback);
        Assert.False(read.Validates);
    }

    [Fact]
    public void An_event_is_about_the_recipients_that_it_names_and_not_about_where_the_mail_went() {
        var read = Read("""
            {"eventType":"Bounce","bounce":{"bounceType":"Permanent","bouncedRecipients":[{"emailAddress":"c@x.com",
            "diagnosticCode":"550 c"},{"emailAddress":"E <e@x.com>","diagnosticCode":"550 e"},
            {"emailAddress":"b@x.com"}]},
            "mail":{"messageId":"m","destination":["a@x.com","b@x.com","c@x.com","d@x.com","e@x.com"]}}
            """);

        Assert.Equal(["c@x.com", "e@x.com", "b@x.com"], Addresses(read));
        Assert.Equal(["550 c", "550 e", null], read.Feedback.Select(each => each.Detail));
        Assert.Equal("E <e@x.com>", read.Feedback[1].Recipient);
        Assert.All(read.Feedback, each => Assert.False(each.Possible)); // each has an answer of its own
    }

    [Fact]
    public void Nothing_but_the_kind_and_a_recipient_is_required() => Assert.Equal(
        new("Bounce", "a@x.com", "a@x.com", new(2026, 11, 24, 8, 0, 0, 123, TimeSpan.Zero), null, null, null, null,
            false, null, null, null, null, null, null, "sns-1"),
        One("""{"eventType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"a@x.com"}]}}"""));

    [Theory]
    [InlineData("\"bounceType\":5,\"bounceSubType\":{}", "5", null)]
    [InlineData("\"bounceType\":true,\"bounceSubType\":null", null, null)]
    [InlineData("\"bounceType\":[\"Permanent\"],\"bounceSubType\":1.50", null, "1.50")]
    [InlineData("\"bounceType\":\"Sideways\",\"bounceSubType\":\"New\",\"more\":[{}]", "Sideways", "New")]
    public void Members_of_another_type_or_name_lose_no_event(string members, string? type, string? subType) {
        var feedback = One(BounceWith(members));

        Assert.Equal((type, subType), (feedback.Type, feedback.SubType));
    }

    [Theory]
    [InlineData("2026-11-24T07:00:00.000Z")]
    [InlineData("2026-11-24T07:00:00 +0000")]
    [InlineData("2026-11-24T02:00:00-05:00")]
    [InlineData("2026-11-24T12:30:00.000+0530")]
    [InlineData("2026-11-24T07:00:00")]
    [InlineData("2026-11-24 07:00:00")]
    public void A_time_is_read_in_every_form_that_SES_prints(string timestamp) {
        var at = One(BounceWith($"\"timestamp\":\"{timestamp}\"")).At;

        Assert.Equal((Seven, TimeSpan.Zero), (at, at.Offset));
    }

    [Theory]
    [InlineData("\"timestamp\":\"yesterday\"")]
    [InlineData("\"timestamp\":\"\"")]
    [InlineData("\"timestamp\":null")]
    [InlineData("\"timestamp\":1764000000")]
    [InlineData("\"no\":\"timestamp\"")]
    public void Without_a_time_that_can_be_read_the_mail_s_own_counts(string members) =>
        Assert.Equal(Seven.AddMinutes(-1), One(BounceWith(members)).At);

    [Theory]
    [InlineData("""20 % off \ud83d\ude00 today""", "20 % off \U0001f600 today")]
    [InlineData("""20 % off \ud83d""", "20 % off \ufffd")]
    [InlineData("""\ude00 20 % off""", "\ufffd 20 % off")]
    [InlineData("""\uD83D tab\t\"quoted\" \u00fc""", "\ufffd tab\t\"quoted\" \u00fc")]
    public void A_subject_cut_in_the_middle_of_an_emoji_stays_readable(string subject, string read) =>
        Assert.Equal(
            read, One(BounceWith("\"x\":1").Replace("Your offers", subject, StringComparison.Ordinal)).Subject);

    [Theory]
    [InlineData("\"campaign\"", "\"\\ud83d\"")]
    [InlineData("\"campaign\"", "\"\\ud83d-and-much-more-than-any-name-of-a-member\"")]
    [InlineData("\"bouncedRecipients\":", "\"\\ud83d\":0,\"bouncedRecipients\":")]
    [InlineData("\"subject\"", "\"\\ud83d\":0,\"subject\"")]
    [InlineData("\"eventType\"", "\"eventTyp\\ude00\":0,\"eventType\"")]
    [InlineData("\"emailAddress\"", "\"diagnosticCode\":\"550 \\ud83d\",\"emailAddress\"")]
    [InlineData("\"campaign\":[\"november\"]", "\"campaign\":[\"\\ud83d\"]")]
    public void Half_an_emoji_loses_no_event_wherever_it_stands_and_is_gone_from_what_is_kept(string text, string with) {
        string message = BounceWith("\"x\":1");
        var feedback = One(message.Replace(text, with, StringComparison.Ordinal));
        Assert.Contains(text, message, StringComparison.Ordinal);
        Assert.Equal("jane@example.com", feedback.Address);
        Assert.DoesNotContain("\\ud83d", feedback.Mail + feedback.Tags + feedback.Detail, StringComparison.Ordinal);
        Assert.All(feedback.TagValues("campaign"), Assert.NotNull);
    }
}
