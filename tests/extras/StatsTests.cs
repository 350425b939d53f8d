using System.Text.Json;

/// <summary>GET /stats.</summary>
public sealed class StatsTests {
    /// <summary>An event of one mail to one address, as SES sends it.</summary>
    static string Event(string kind, string address, string mail, string at = "2026-11-24T07:00:00Z", string type = "", string subType = "",
        string subject = "Your offers", string sent = "2026-11-24T06:59:00Z", string tags = """{"campaign":["november"]}""") =>
        $$"""
        {"eventType":"{{kind}}","bounce":{"bounceType":"{{type}}","bounceSubType":"{{subType}}","bouncedRecipients":[{"emailAddress":"{{address}}"}],"timestamp":"{{at}}"},
        "complaint":{"complaintFeedbackType":"{{type}}","complainedRecipients":[{"emailAddress":"{{address}}"}],"timestamp":"{{at}}"},
        "delivery":{"recipients":["{{address}}"],"timestamp":"{{at}}"},"send":{},"open":{"timestamp":"{{at}}"},
        "mail":{"timestamp":"{{(kind == "Send" ? at : sent)}}","messageId":"{{mail}}","source":"news@shop.example.com","destination":["{{address}}"],
        "commonHeaders":{"subject":{{JsonSerializer.Serialize(subject)}}},"tags":{{tags}} } }
        """;

    static async Task<ReceiverApp> WithAsync(params string[] events) {
        var app = await ReceiverApp.StartAsync();
        foreach (string each in events) Assert.Equal((200, "kept"), await app.PostAsync(app.Sns.Signed(each)));
        await app.CaughtUpAsync();
        return app;
    }

    /// <summary>A row as `key sends deliveries bounces softBounces complaints notSpam other`.</summary>
    static string[] Rows(JsonElement report) => [.. report.GetProperty("rows").EnumerateArray().Select(row => string.Join(' ', ((string[])[
        "key", "sends", "deliveries", "bounces", "softBounces", "complaints", "notSpam", "other"]).Select(name => row.GetProperty(name).ToString())))];

    static async Task<string[]> RowsAsync(ReceiverApp app, string query) => Rows((await app.GetAsync("/stats?" + query)).Json);

    static readonly string[] OfEveryKind = [
        Event("Send", "a@example.com", "m1"), Event("Send", "b@example.com", "m2"), Event("Send", "c@example.com", "m3"), Event("Send", "d@example.com", "m4"),
        Event("Delivery", "a@example.com", "m1"), Event("Delivery", "b@example.com", "m2"), Event("Bounce", "c@example.com", "m3", type: "Permanent", subType: "General"),
        Event("Bounce", "d@example.com", "m4", type: "Transient", subType: "MailboxFull"), Event("Bounce", "e@example.com", "m5", type: "Permanent", subType: "OnAccountSuppressionList"),
        Event("Bounce", "bounce@simulator.amazonses.com", "m6", type: "Permanent", subType: "General"), Event("Complaint", "a@example.com", "m1", type: "abuse"),
        Event("Complaint", "b@example.com", "m2", type: "not-spam"), Event("Open", "a@example.com", "m1"),
    ];

    [Fact]
    public async Task By_day_an_empty_receiver_answers_the_last_30_days_with_zeros_and_rates_unknown() {
        await using var app = await ReceiverApp.StartAsync();
        var (status, report) = await app.GetAsync("/stats?by=day");
        Assert.Equal(200, status);
        Assert.Equal(("day", "2026-10-26", "2026-11-25", false), (report.GetProperty("by").GetString(), report.GetProperty("since").GetString(),
            report.GetProperty("until").GetString(), report.GetProperty("scanned").GetBoolean()));
        Assert.Equal(30, report.GetProperty("rows").GetArrayLength());
        Assert.Equal("""{"key":"2026-10-26","sends":0,"deliveries":0,"bounces":0,"softBounces":0,"complaints":0,"notSpam":0,"other":0,"bounceRate":null,"complaintRate":null}""",
            report.GetProperty("rows")[0].GetRawText());
        Assert.Equal("2026-11-24", report.GetProperty("rows")[29].GetProperty("key").GetString());
        Assert.Equal(report.GetRawText(), (await app.GetAsync("/stats")).Json.GetRawText());
    }

    [Fact]
    public async Task By_day_everything_is_counted_as_the_rates_count_it() {
        await using var app = await WithAsync(OfEveryKind);
        var row = (await app.GetAsync("/stats?since=2026-11-24")).Json.GetProperty("rows")[0];
        Assert.Equal("""{"key":"2026-11-24","sends":4,"deliveries":2,"bounces":1,"softBounces":1,"complaints":1,"notSpam":1,"other":3,"bounceRate":0.25,"complaintRate":0.5}""",
            row.GetRawText());
    }

    [Theory]
    [InlineData("since=2026-11-22&until=2026-11-24", "2026-11-22 2026-11-23", "2026-11-22 2026-11-24")]
    [InlineData("since=2026-11-22T23:00:00Z&until=2026-11-23T01:00:00Z", "2026-11-22 2026-11-23", "2026-11-22 2026-11-24")]
    [InlineData("until=2026-11-25&limit=2", "2026-11-23 2026-11-24", "2026-11-23 2026-11-25")]
    [InlineData("since=2026-11-24", "2026-11-24", "2026-11-24 2026-11-25")]
    [InlineData("since=2026-11-24&limit=1", "2026-11-24", "2026-11-24 2026-11-25")]
    public async Task By_day_whole_days_are_counted_oldest_first_and_the_newest_are_kept(string query, string days, string range) {
        await using var app = await ReceiverApp.StartAsync();
        var report = (await app.GetAsync("/stats?" + query)).Json;
        Assert.Equal(days.Split(' '), report.GetProperty("rows").EnumerateArray().Select(row => row.GetProperty("key").GetString()));
        Assert.Equal(range, $"{report.GetProperty("since")} {report.GetProperty("until")}");
    }

    [Fact]
    public async Task By_day_a_day_ends_at_midnight_UTC_and_a_thousand_days_are_the_most() {
        await using var app = await WithAsync(Event("Bounce", "a@example.com", "m1", "2026-11-22T23:59:59.999Z", "Permanent"),
            Event("Bounce", "b@example.com", "m2", "2026-11-23T00:00:00Z", "Permanent"));
        Assert.Equal(["2026-11-22 0 0 1 0 0 0 0", "2026-11-23 0 0 1 0 0 0 0"], await RowsAsync(app, "since=2026-11-22&until=2026-11-24"));
        Assert.Equal(["2026-11-22 0 0 1 0 0 0 0"], await RowsAsync(app, "since=2026-11-22&until=2026-11-23"));
        Assert.Equal(1000, (await RowsAsync(app, "since=1970-01-01")).Length);
    }

    [Theory]
    [InlineData("kind=Complaint", "2026-11-24 0 0 0 0 1 1 0")]
    [InlineData("kind=Bounce&type=Transient", "2026-11-24 0 0 0 1 0 0 0")]
    [InlineData("subtype=General", "2026-11-24 0 0 1 0 0 0 1")]
    public async Task By_day_kind_and_types_can_be_chosen(string query, string expected) {
        await using var app = await WithAsync(OfEveryKind);
        Assert.Equal([expected], await RowsAsync(app, "since=2026-11-24&" + query));
    }

    [Fact]
    public async Task By_another_key_the_events_of_the_range_are_read_and_it_says_so() {
        await using var app = await WithAsync(OfEveryKind);
        var report = (await app.GetAsync("/stats?by=type")).Json;
        Assert.Equal(("type", "2026-10-26", "2026-11-25", true, 13L, true), (report.GetProperty("by").GetString(), report.GetProperty("since").GetString(),
            report.GetProperty("until").GetString(), report.GetProperty("scanned").GetBoolean(), report.GetProperty("read").GetInt64(), report.GetProperty("complete").GetBoolean()));
        Assert.Equal(["Permanent/General 0 0 1 0 0 0 1", "abuse 0 0 0 0 1 0 0", " 4 2 0 0 0 0 1", "Permanent/OnAccountSuppressionList 0 0 0 0 0 0 1",
            "Transient/MailboxFull 0 0 0 1 0 0 0", "not-spam 0 0 0 0 0 1 0"], Rows(report));
        Assert.Equal(JsonValueKind.Null, report.GetProperty("rows")[2].GetProperty("key").ValueKind);
    }

    [Theory]
    [InlineData("by=domain", "example.com 4 2 1 1 1 1 2|simulator.amazonses.com 0 0 0 0 0 0 1")]
    [InlineData("by=domain&domain=example.com", "example.com 4 2 1 1 1 1 2")]
    [InlineData("by=domain&limit=1", "example.com 4 2 1 1 1 1 2")]
    [InlineData("by=subject&kind=Complaint", "Your offers 0 0 0 0 1 1 0")]
    [InlineData("by=source", "news@shop.example.com 4 2 1 1 1 1 3")]
    [InlineData("by=configurationSet", " 4 2 1 1 1 1 3")]
    [InlineData("by=tag:campaign&type=abuse", "november 0 0 0 0 1 0 0")]
    [InlineData("by=tag:unheard&type=abuse", " 0 0 0 0 1 0 0")]
    [InlineData("by=subject&since=2026-11-24T07:00:00Z&until=2026-11-24T07:00:01Z&kind=Complaint", "Your offers 0 0 0 0 1 1 0")]
    [InlineData("by=subject&since=2026-11-24T06:00:00Z&until=2026-11-24T07:00:00Z", "")]
    public async Task Each_key_has_its_row(string query, string expected) {
        await using var app = await WithAsync(OfEveryKind);
        Assert.Equal(expected, string.Join('|', await RowsAsync(app, query)));
    }

    [Fact]
    public async Task Rows_with_the_most_bounces_and_complaints_come_first() {
        await using var app = await WithAsync(Event("Complaint", "a@example.com", "m1", type: "abuse", subject: "twice"), Event("Delivery", "x@example.com", "m9", subject: "never"),
            Event("Delivery", "y@example.com", "m8", subject: "never"), Event("Delivery", "z@example.com", "m7", subject: "never"),
            Event("Bounce", "b@example.com", "m2", type: "Permanent", subject: "twice"), Event("Complaint", "c@example.com", "m3", type: "abuse", subject: "once"));
        Assert.Equal(["twice 0 0 1 0 1 0 0", "once 0 0 0 0 1 0 0", "never 0 3 0 0 0 0 0"], await RowsAsync(app, "by=subject"));
    }

    [Fact]
    public async Task A_mail_with_two_values_of_a_tag_counts_under_both() {
        await using var app = await WithAsync(Event("Complaint", "a@example.com", "m1", type: "abuse", tags: """{"list":["vip","all","all"]}"""));
        Assert.Equal(["all 0 0 0 0 1 0 0", "vip 0 0 0 0 1 0 0"], await RowsAsync(app, "by=tag:list"));
    }

    [Fact]
    public async Task A_key_is_cut_to_200_characters_and_never_within_one() {
        string subject = new string('x', 199) + "\U0001F4E7 and more";
        await using var app = await WithAsync(Event("Complaint", "a@example.com", "m1", type: "abuse", subject: subject));
        Assert.Equal([new string('x', 199) + " 0 0 0 0 1 0 0"], await RowsAsync(app, "by=subject"));
    }

    [Fact]
    public void However_many_keys_there_are_the_heaviest_are_kept() {
        var table = new StatsTable();
        Feedback Complaint(string subject) => Story.Said("Complaint", "abuse", null, 0, "mail") with { Subject = subject };
        for (int i = 0; i < 3; i++) table["heavy"].Add(Complaint("heavy"));
        for (int i = 0; i < 20_000 - 1; i++) table[$"{i:00000}"].Add(Complaint("light"));
        Assert.True(table.Complete);
        table["one more"].Add(Complaint("light"));
        Assert.False(table.Complete);
        Assert.Equal(("heavy", 3L), (table.Heaviest.First().Key, table.Heaviest.First().Complaints));
        Assert.Equal(10_001, table.Heaviest.Count());
    }

    [Theory]
    [InlineData("by=colour", "by must be one of day type domain subject source configurationSet didYouMean prevented tag:NAME; 'colour' is not.")]
    [InlineData("by=tag:", "by must be one of")]
    [InlineData("by=tag:NAME", "by=tag:NAME wants the name of a tag of yours.")]
    [InlineData("since=2026-11-25&until=2026-11-25", "since must be before until, which is not included.")]
    [InlineData("since=2026-11-26&until=2026-11-25", "since must be before until")]
    [InlineData("since=soon", "since must be a date or a time")]
    [InlineData("limit=0", "limit must be a number from 1 to 1000; '0' is not.")]
    [InlineData("by=subject&limit=1001", "limit must be a number from 1 to 1000; '1001' is not.")]
    [InlineData("by=day&domain=example.com", "'domain' is no parameter here")]
    [InlineData("by=didYouMean&kind=Bounce", "'kind' is no parameter here")]
    [InlineData("by=prevented&tag=a:b", "'tag' is no parameter here")]
    [InlineData("by=subject&after=01a1a0bee20086947da44f3d33fc2d4e", "'after' is no parameter here")]
    [InlineData("by=day&by=type", "by is given twice.")]
    [InlineData("by=subject&since=2026-11-26&until=2026-11-25&limit=0", "limit must be a number")]
    public async Task What_cannot_be_right_is_400_and_named(string query, string why) {
        await using var app = await ReceiverApp.StartAsync();
        var (status, problem) = await app.GetAsync("/stats?" + query);
        Assert.Equal(400, status);
        Assert.StartsWith(why, problem.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("since=2027-01-01", "2027-01-01 2027-01-31")]
    [InlineData("since=2026-11-25", "2026-11-25 2026-12-25")]
    [InlineData("since=2026-11-24T01:00:00%2B01:00", "2026-11-24 2026-11-25")]
    [InlineData("since=2026-11-24T01:00:00Z", "2026-11-24T01:00:00Z 2026-11-25")]
    public async Task Without_until_a_range_ends_after_today_or_is_30_days(string query, string range) {
        await using var app = await ReceiverApp.StartAsync();
        var report = (await app.GetAsync("/stats?by=subject&" + query)).Json;
        Assert.Equal(range, $"{report.GetProperty("since")} {report.GetProperty("until")}");
    }

    [Fact]
    public async Task Without_a_limit_there_are_the_hundred_heaviest() {
        await using var app = await WithAsync(FakeSns.SesBounce([.. Enumerable.Range(0, 101).Select(number => $"jane@shop{number}.example")]));
        Assert.Equal(100, (await RowsAsync(app, "by=domain")).Length);
    }

    [Fact]
    public async Task The_simulators_mail_is_other_whatever_came_of_it() {
        await using var app = await WithAsync(Event("Bounce", "ooto@simulator.amazonses.com", "m1", type: "Transient", subType: "General"),
            Event("Complaint", "complaint@simulator.amazonses.com", "m2", type: "not-spam"), Event("Complaint", "complaint@simulator.amazonses.com", "m3", type: "abuse"));
        Assert.Equal(["2026-11-24 0 0 0 0 0 0 3"], await RowsAsync(app, "since=2026-11-24"));
    }

    [Fact]
    public async Task Of_rows_with_as_many_bounces_and_complaints_that_with_more_mail_comes_first() {
        await using var app = await WithAsync(Event("Delivery", "x@example.com", "m1", subject: "a few"), Event("Delivery", "y@example.com", "m2", subject: "many"),
            Event("Delivery", "z@example.com", "m3", subject: "many"));
        Assert.Equal(["many 0 2 0 0 0 0 0", "a few 0 1 0 0 0 0 0"], await RowsAsync(app, "by=subject"));
    }

    [Fact]
    public async Task Half_an_emoji_in_a_tag_is_counted_as_what_stands_for_it() {
        await using var app = await WithAsync(Event("Send", "a@example.com", "m1", tags: """{"campaign":["\ud83d","november"]}"""),
            Event("Send", "b@example.com", "m2", tags: """{"campaign":["november"],"\ud83d and more":["x"]}"""));
        Assert.Equal(["november 2 0 0 0 0 0 0", "\ufffd 1 0 0 0 0 0 0"], await RowsAsync(app, "by=tag:campaign"));
    }

    // ---- didYouMean

    static string Unknown(string address, string subType = "General", string type = "Permanent", string at = "2026-11-24T07:00:00Z") =>
        Event("Bounce", address, "mail to " + address, at, type, subType);

    static async Task<string[]> SlipsAsync(params string[] events) {
        await using var app = await WithAsync(events);
        return [.. (await app.GetAsync("/stats?by=didYouMean")).Json.GetProperty("rows").EnumerateArray()
            .Select(row => $"{row.GetProperty("key")} {row.GetProperty("didYouMean")} {row.GetProperty("bounces")}")];
    }

    [Theory]
    [InlineData("gmial.com", "gmail.com")]   // a transposition is one slip
    [InlineData("gmail.con", "gmail.com")]
    [InlineData("gamil.co", "gmail.com")]    // two
    [InlineData("hotmial.com", "hotmail.com")]
    [InlineData("yaho.com", "yahoo.com")]
    [InlineData("otulok.com", "outlook.com")]
    [InlineData("gmx.dd", "gmx.de")]
    [InlineData("gmaill.comm", "gmail.com")]
    [InlineData("ymail.con", "ymail.com")] // two from gmail.com
    public async Task An_unknown_address_at_a_slip_for_a_common_domain_has_a_suggestion(string domain, string meant) =>
        Assert.Equal([$"jane@{domain} jane@{meant} 1"], await SlipsAsync(Unknown("jane@" + domain)));

    [Theory]
    [InlineData("gmail.com")]
    [InlineData("mail.com")]        // one from gmail.com, and real
    [InlineData("ymail.com")]
    [InlineData("example.com")]
    [InlineData("gmxx.dd")]         // two from gmx.de: too much for so short a name
    [InlineData("gamli.cmo")]       // three from gmail.com
    public async Task A_domain_that_is_common_itself_or_far_from_any_has_none(string domain) => Assert.Empty(await SlipsAsync(Unknown("jane@" + domain)));

    [Fact]
    public async Task Only_an_address_that_is_unknown_for_good_is_a_slip() => Assert.Equal(["b@gmial.com b@gmail.com 1", "c@gmial.com c@gmail.com 1"],
        await SlipsAsync(Unknown("a@gmial.com", type: "Transient"), Unknown("b@gmial.com", "NoEmail"), Unknown("c@gmial.com"), Unknown("d@gmial.com", "Suppressed"),
            Event("Complaint", "e@gmial.com", "m", type: "abuse")));

    [Fact]
    public async Task A_domain_that_ever_took_mail_is_no_slip() => Assert.Equal(["b@hotmial.com b@hotmail.com 1"], await SlipsAsync(
        Event("Delivery", "x@gmial.com", "m1", at: "2026-11-01T00:00:00Z"), Unknown("a@gmial.com"), Unknown("b@hotmial.com")));

    // ---- prevented

    [Fact]
    public async Task Mail_sent_after_its_address_was_suppressed_would_have_been_prevented() {
        await using var app = await WithAsync(
            Event("Bounce", "jane@example.com", "m1", "2026-11-20T07:00:00Z", "Permanent", "General", sent: "2026-11-20T06:59:00Z"),
            Event("Complaint", "jane@example.com", "m2", "2026-11-20T09:00:00Z", "abuse", sent: "2026-11-20T06:59:30Z"), // was on its way already
            Event("Bounce", "jane@example.com", "m3", "2026-11-21T07:00:00Z", "Permanent", "General", sent: "2026-11-21T06:59:00Z"),
            Event("Bounce", "jane@example.com", "m4", "2026-11-21T08:00:00Z", "Transient", "MailboxFull", sent: "2026-11-21T07:59:00Z"),
            Event("Complaint", "jane@example.com", "m5", "2026-11-22T07:00:00Z", "abuse", sent: "2026-11-21T23:59:00Z"),
            Event("Bounce", "jane@example.com", "m6", "2026-11-22T07:00:00Z", "Permanent", "OnAccountSuppressionList", sent: "2026-11-22T06:59:00Z"),
            Event("Bounce", "free@example.com", "m7", "2026-11-22T07:00:00Z", "Transient", "MailboxFull", sent: "2026-11-22T06:59:00Z"));
        var report = (await app.GetAsync("/stats?by=prevented")).Json;
        Assert.Equal(["2026-11-22 0 0 0 0 1 0 1", "2026-11-21 0 0 1 1 0 0 0"], Rows(report));
        Assert.Equal(7, report.GetProperty("read").GetInt64());
        Assert.Equal(["2026-11-21 0 0 1 1 0 0 0"], await RowsAsync(app, "by=prevented&until=2026-11-22"));
    }

    [Fact]
    public async Task Half_an_emoji_in_what_a_mail_says_prevents_no_count() {
        static string Mail(string mail, string day) =>
            Event("Bounce", "jane@example.com", mail, $"2026-11-{day}T07:00:00Z", "Permanent", "General", sent: $"2026-11-{day}T06:59:00Z")
                .Replace("\"messageId\":", """
                    "\ud83d and more":"x","messageId":
                    """.Trim(), StringComparison.Ordinal);
        await using var app = await WithAsync(Mail("m1", "20"), Mail("m2", "21"));
        Assert.Equal(["2026-11-21 0 0 1 0 0 0 0"], await RowsAsync(app, "by=prevented"));
    }

    [Fact]
    public async Task However_many_there_are_each_counts_once_as_prevented() {
        string[] many = [.. Enumerable.Range(0, 300).Select(number => $"a{number}@example.com")];
        await using var app = await WithAsync(FakeSns.SesBounce(many, "m1", at: "2026-11-20T07:00:00Z"), FakeSns.SesBounce(many, "m2"));
        var report = (await app.GetAsync("/stats?by=prevented")).Json;
        Assert.Equal(["2026-11-24 0 0 300 0 0 0 0"], Rows(report));
        Assert.Equal(600, report.GetProperty("read").GetInt64());
    }

    [Fact]
    public async Task What_is_suppressed_no_longer_counts_as_prevented_no_longer() {
        await using var app = await WithAsync(
            Event("Bounce", "jane@example.com", "m1", "2026-11-20T07:00:00Z", "Permanent", "General", sent: "2026-11-20T06:59:00Z"),
            Event("Bounce", "jane@example.com", "m3", "2026-11-21T07:00:00Z", "Permanent", "General", sent: "2026-11-21T06:59:00Z"));
        Assert.Equal(["2026-11-21 0 0 1 0 0 0 0"], await RowsAsync(app, "by=prevented"));
        using var lifted = await app.Private.DeleteAsync("/suppressed/jane@example.com", TestContext.Current.CancellationToken);
        Assert.Empty(await RowsAsync(app, "by=prevented"));
    }
}
