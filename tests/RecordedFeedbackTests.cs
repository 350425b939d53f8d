using System.Runtime.CompilerServices;
using System.Text.Json;

/// <summary>What is read from the recorded payloads, and which events are the same event.</summary>
public sealed class RecordedFeedbackTests {
    static SesEvent Read(string message, string id = "sns-1", string type = "Notification") =>
        SesEvent.Read(new(type, id, FakeSns.TopicArn, message, "2026-11-24T08:00:00.123Z", "2", "", ""));

    static Feedback One(string message, string id = "sns-1") => Assert.Single(Read(message, id).Feedback);

    static string Payload(string name, string member, [CallerFilePath] string here = "") => JsonElement
        .Parse(File.ReadAllText(Path.Combine(Path.GetDirectoryName(here)!, "payloads", name + ".json")))
        .GetProperty(member).GetString()!;

    [Theory]
    [InlineData("bounce-permanent", "Bounce Permanent General", "jane@example.com")]
    [InlineData("bounce-permanent-identity", "Bounce Permanent General", "jane@example.com")]
    [InlineData("bounce-permanent-several", "Bounce Permanent General",
        "anna@example.org bob@example.com carol@example.com")]
    [InlineData("bounce-mailbox-full", "Bounce Transient MailboxFull", "martin@example.org")]
    [InlineData("bounce-out-of-office", "Bounce Transient General", "lena@example.com")]
    [InlineData("bounce-on-suppression-list", "Bounce Permanent OnAccountSuppressionList", "peter@example.com")]
    [InlineData("complaint-abuse", "Complaint abuse ", "sam@example.net")]
    [InlineData("complaint-not-spam", "Complaint not-spam ", "nora@example.net")]
    [InlineData("complaint-several", "Complaint  ", "ines@example.net karl@example.net ute@example.net")]
    [InlineData("delivery", "Delivery  ", "lena@example.com")]
    [InlineData("delivery-delay", "DeliveryDelay MailboxFull ", "rosa@example.org")]
    [InlineData("send", "Send  ", "lena@example.com")]
    [InlineData("open", "Open  ", "lena@example.com")]
    [InlineData("click", "Click  ", "lena@example.com")]
    [InlineData("reject", "Reject  ", "olga@example.org")]
    [InlineData("rendering-failure", "Rendering Failure  order-shipped", "paul@example.com")]
    [InlineData("subscription-unsubscribe-all", "Subscription unsubscribeAll ", "tina@example.org")]
    public void Every_recorded_event_is_read(string name, string said, string addresses) {
        var read = Read(Payload(name, "Message"));

        Assert.Equal(addresses.Split(' '), read.Feedback.Select(each => each.Address));
        Assert.All(read.Feedback, each => Assert.Equal(said, $"{each.Kind} {each.Type} {each.SubType}"));
        Assert.Null(read.Unread);
    }

    [Theory]
    [InlineData("ses-validation")]
    [InlineData("identity-topic-succeeded")]
    public void That_a_topic_works_is_recognised_and_is_no_feedback(string name) {
        var read = Read(Payload(name, "Message") + "\n");

        Assert.True(read.Validates);
        Assert.Null(read.Unread);
        Assert.Empty(read.Feedback);
    }

    [Theory]
    [InlineData("subscription-confirmation")]
    [InlineData("unsubscribe-confirmation")]
    public void A_confirmation_is_neither_feedback_nor_unread(string name) {
        var read = Read(Payload(name, "Message"), type: Payload(name, "Type"));

        Assert.Empty(read.Feedback);
        Assert.Null(read.Unread);
        Assert.False(read.Validates);
    }

    [Fact]
    public void A_retry_and_the_other_format_have_the_same_id() {
        string id = One(FakeSns.SesBounce(["a@x.com"], format: "eventType"), "sns-1").Id;

        Assert.Equal(id, One(FakeSns.SesBounce(["A@X.com"], format: "eventType"), "sns-2").Id);
        Assert.Equal(id, One(FakeSns.SesBounce(["a@x.com"], format: "notificationType"), "sns-3").Id);
        Assert.Contains("0100019a00000000-mail", id, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("bounce-permanent")]
    [InlineData("complaint-abuse")]
    [InlineData("delivery")]
    [InlineData("send")]
    [InlineData("reject")]
    [InlineData("rendering-failure")]
    public void What_happens_once_to_a_mail_has_the_same_id_in_every_SNS_message(string name) {
        string message = Payload(name, "Message");

        Assert.Equal(One(message, "sns-1").Id, One(message, "sns-2").Id);
    }

    [Fact]
    public void Without_a_mail_id_the_SNS_message_is_the_event() {
        string message = """{"eventType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"a@x.com"}]}}""";

        Assert.Equal(One(message, "sns-1").Id, One(message, "sns-1").Id);
        Assert.NotEqual(One(message, "sns-1").Id, One(message, "sns-2").Id);
    }

    [Theory]
    [InlineData("open")]
    [InlineData("click")]
    [InlineData("delivery-delay")]
    [InlineData("subscription-unsubscribe-all")]
    public void What_may_rightly_repeat_takes_the_id_of_its_SNS_message(string name) {
        string message = Payload(name, "Message");

        Assert.Equal(One(message, "sns-1").Id, One(message, "sns-1").Id);
        Assert.NotEqual(One(message, "sns-1").Id, One(message, "sns-2").Id);
    }

    [Fact]
    public void Recipients_kinds_types_and_mails_have_ids_of_their_own() {
        string[] ids = [.. new[]
        {
            FakeSns.SesBounce(["a@x.com", "b@x.com"]), FakeSns.SesBounce(["a@x.com"], mailId: "other"),
            FakeSns.SesBounce(["a@x.com"], type: "Transient"), FakeSns.SesComplaint(["a@x.com"]),
            FakeSns.SesComplaint(["a@x.com"], type: "not-spam"), FakeSns.SesDelivery("a@x.com"),
        }.SelectMany(message => Read(message).Feedback).Select(feedback => feedback.Id)];

        Assert.Equal(7, ids.Distinct().Count());
    }
}
