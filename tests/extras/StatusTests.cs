using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;

/// <summary>GET /status, the doctor: each finding has its code, and the command that mends it.</summary>
public sealed class StatusTests {
    const string Topic = FakeSns.TopicArn;

    static async Task<JsonElement> StatusOf(ReceiverApp app) => (await app.GetAsync("/status")).Json;

    /// <summary>The findings as `severity code`.</summary>
    static async Task<string[]> FindingsAsync(ReceiverApp app) => [.. (await StatusOf(app)).GetProperty("findings").EnumerateArray()
        .Select(finding => $"{finding.GetProperty("severity")} {finding.GetProperty("code")}")];

    static async Task<JsonElement> FindingAsync(ReceiverApp app, string code) => (await StatusOf(app)).GetProperty("findings").EnumerateArray()
        .Single(finding => finding.GetProperty("code").GetString() == code);

    /// <summary>A Notification that SNS wrote so long before the clock of the receiver.</summary>
    static string Sent(ReceiverApp app, TimeSpan before, string address = "jane@example.com") {
        var envelope = app.Sns.Notification(FakeSns.SesBounce([address], "mail-" + Guid.NewGuid()));
        envelope["Timestamp"] = (app.Clock.GetUtcNow() - before).ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", System.Globalization.CultureInfo.InvariantCulture);
        return app.Sns.Sign(envelope);
    }

    static string[] Addresses(int count) => [.. Enumerable.Range(0, count).Select(i => $"a{i}@example.com")];

    /// <summary>One mail to many, sent or delivered an hour before the clock of the receiver.</summary>
    static string ToMany(string kind, int count) => $$"""
        {"eventType":"{{kind}}","{{kind.ToLowerInvariant()}}":{"timestamp":"2026-11-24T07:00:00Z","recipients":{{JsonSerializer.Serialize(Addresses(count))}}},
        "mail":{"timestamp":"2026-11-24T07:00:00Z","messageId":"mail-1","destination":{{JsonSerializer.Serialize(Addresses(count))}}} }
        """;

    [Fact]
    public async Task A_topic_that_nothing_came_from_is_an_error_and_the_command_subscribes_it() {
        await using var app = await ReceiverApp.StartAsync();
        var status = await StatusOf(app);
        Assert.False(status.GetProperty("ok").GetBoolean());
        var finding = Assert.Single(status.GetProperty("findings").EnumerateArray(), finding => finding.GetProperty("severity").GetString() != "hint");
        Assert.Equal(("topic-unconfirmed", "error"), (finding.GetProperty("code").GetString(), finding.GetProperty("severity").GetString()));
        Assert.Contains(Topic, finding.GetProperty("says").GetString(), StringComparison.Ordinal);
        Assert.StartsWith($"aws sns subscribe --topic-arn {Topic} --protocol https", finding.GetProperty("mend").GetString(), StringComparison.Ordinal);
        Assert.Equal(Topic, Assert.Single(status.GetProperty("topics").EnumerateArray()).GetProperty("topicArn").GetString());
    }

    [Fact]
    public async Task A_confirmed_topic_with_mail_about_it_is_well_and_all_is_told() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        await app.PostAsync(app.Sns.Signed("Successfully validated SNS topic for Amazon SES event publishing."));
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        var (code, status) = await app.GetAsync("/status");
        Assert.Equal(200, code);
        Assert.True(status.GetProperty("ok").GetBoolean());
        Assert.Equal(["hint rates-unknown"], await FindingsAsync(app));
        Assert.Equal($$"""[{"topicArn":"{{Topic}}","confirmedAt":"2026-11-24T08:00:00Z","unsubscribedAt":null,"validatedAt":"2026-11-24T08:00:00Z","lastAt":"2026-11-24T08:00:00Z","signatureVersion":"2","doubledAt":null}]""",
            status.GetProperty("topics").GetRawText());
        Assert.Equal("""{"window":"24h","sends":0,"deliveries":0,"bounces":1,"complaints":0,"bounceRate":null,"complaintRate":null,"bounceVerdict":"unknown","complaintVerdict":"unknown"}""",
            status.GetProperty("rates")[0].GetRawText());
        Assert.Equal("7d", status.GetProperty("rates")[1].GetProperty("window").GetString());
        Assert.Equal("""{"bounce":[0.02,0.05,0.1],"complaint":[0.0005,0.001,0.005]}""", status.GetProperty("lines").GetRawText());
        Assert.Empty(status.GetProperty("refusals").EnumerateArray());
        var store = status.GetProperty("store");
        Assert.Equal(("LiteDB", 0L, 0.0, 1L, 0L), (store.GetProperty("name").GetString(), store.GetProperty("behindBytes").GetInt64(),
            store.GetProperty("behindSeconds").GetDouble(), store.GetProperty("suppressed").GetInt64(), store.GetProperty("unread").GetInt64()));
        Assert.Equal(Directory.GetFiles(app.JournalFolder, "*.ndjson").Sum(path => new FileInfo(path).Length), store.GetProperty("journalBytes").GetInt64());
        Assert.InRange(status.GetProperty("disk").GetProperty("freeBytes").GetInt64(), 1, status.GetProperty("disk").GetProperty("totalBytes").GetInt64());
        Assert.Equal("2026-11-24T08:00:00Z", status.GetProperty("startedAt").GetString());
        Assert.Empty(status.GetProperty("errands").EnumerateArray()); // no Hook:Url
    }

    [Fact]
    public async Task A_topic_that_was_unsubscribed_is_an_error_until_it_is_subscribed_again() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        app.Clock.Advance(TimeSpan.FromMinutes(1));
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation")));
        app.Clock.Advance(TimeSpan.FromMinutes(1));
        await app.PostAsync(app.Sns.Bounce("straggler@example.com"));
        Assert.Contains("error topic-unsubscribed", await FindingsAsync(app));
        app.Clock.Advance(TimeSpan.FromMinutes(1));
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        Assert.Equal(["hint rates-unknown"], await FindingsAsync(app));
    }

    [Fact]
    public async Task An_unsubscribed_topic_that_still_speaks_after_an_hour_has_another_way_here() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation")));
        app.Clock.Advance(TimeSpan.FromHours(1));
        await app.PostAsync(app.Sns.Bounce("a@example.com", "mail-1"));
        Assert.Contains("error topic-unsubscribed", await FindingsAsync(app));
        app.Clock.Advance(TimeSpan.FromSeconds(1));
        await app.PostAsync(app.Sns.Bounce("a@example.com", "mail-2"));
        Assert.DoesNotContain("error topic-unsubscribed", await FindingsAsync(app));
    }

    [Fact]
    public async Task A_topic_is_silent_after_seven_days() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        app.Clock.Advance(TimeSpan.FromDays(7));
        Assert.DoesNotContain("warning topic-silent", await FindingsAsync(app));
        app.Clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Contains("warning topic-silent", await FindingsAsync(app));
        Assert.Contains("@simulator.amazonses.com", (await FindingAsync(app, "topic-silent")).GetProperty("mend").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Signature_version_1_is_a_hint_until_the_topic_signs_with_2() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["a@example.com"], "mail-1"), version: "1"));
        Assert.Contains("hint signature-version-1", await FindingsAsync(app));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["a@example.com"], "mail-2")));
        Assert.DoesNotContain("hint signature-version-1", await FindingsAsync(app));
    }

    [Fact]
    public async Task One_bounce_in_both_formats_is_a_warning_for_a_week() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["a@example.com"])));
        Assert.DoesNotContain("warning formats-doubled", await FindingsAsync(app));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["a@example.com"], format: "notificationType")));
        Assert.Contains("warning formats-doubled", await FindingsAsync(app));
        Assert.Contains("set-identity-notification-topic", (await FindingAsync(app, "formats-doubled")).GetProperty("mend").GetString(), StringComparison.Ordinal);
        app.Clock.Advance(TimeSpan.FromDays(7));
        Assert.DoesNotContain("warning formats-doubled", await FindingsAsync(app));
    }

    [Theory]
    [InlineData("eventType")]
    [InlineData("notificationType")]
    public async Task A_bare_SES_event_means_that_raw_delivery_is_on(string format) {
        await using var app = await ReceiverApp.StartAsync();
        var (status, line) = await app.PostAsync(FakeSns.SesBounce(["jane@example.com"], format: format));
        Assert.Equal(400, status);
        Assert.Contains("raw message delivery is on", line, StringComparison.Ordinal);
        Assert.Contains("warning raw-delivery", await FindingsAsync(app));
        Assert.DoesNotContain("jane", (await StatusOf(app)).GetRawText(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_envelope_that_is_damaged_is_not_taken_for_raw_delivery() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.DoesNotContain("raw message delivery is on,", (await app.PostAsync(app.Sns.Bounce("jane@example.com")[..^1])).Line, StringComparison.Ordinal);
        Assert.Equal(["error topic-unconfirmed", "hint rates-unknown", "hint refused"], await FindingsAsync(app));
    }

    [Fact]
    public async Task The_last_fifty_refusals_are_told_newest_first_without_a_word_of_what_they_said() {
        await using var app = await ReceiverApp.StartAsync();
        for (int i = 0; i < 49; i++) await app.PostAsync("no JSON from jane@example.com");
        var foreign = app.Sns.Notification(FakeSns.SesBounce(["jane@example.com"]));
        foreign["TopicArn"] = "arn:aws:sns:us-east-1:999999999999:theirs";
        await app.PostAsync(app.Sns.Sign(foreign));
        app.Clock.Advance(TimeSpan.FromSeconds(1));
        var forged = JsonNode.Parse(app.Sns.Bounce("jane@example.com"))!;
        forged["Message"] = "forged";
        await app.PostAsync(forged.ToJsonString());
        var refusals = (await StatusOf(app)).GetProperty("refusals");
        Assert.Equal(50, refusals.GetArrayLength());
        Assert.Equal($$"""{"at":"2026-11-24T08:00:01Z","status":403,"why":"the signature does not fit","topicArn":"{{Topic}}"}""", refusals[0].GetRawText());
        Assert.Equal("arn:aws:sns:us-east-1:999999999999:theirs", refusals[1].GetProperty("topicArn").GetString());
        Assert.Equal(JsonValueKind.Null, refusals[2].GetProperty("topicArn").ValueKind);
        Assert.DoesNotContain("jane", refusals.GetRawText(), StringComparison.Ordinal);
        Assert.Equal(["error topic-unconfirmed", "hint rates-unknown", "hint refused", "hint topic-not-allowed", "hint refused"], await FindingsAsync(app));
    }

    [Fact]
    public async Task What_a_stranger_calls_his_topic_is_cut_and_printable() {
        await using var app = await ReceiverApp.StartAsync();
        var foreign = app.Sns.Notification("x");
        foreign["TopicArn"] = "<script>\u00e4\u202e\ud83d\udce7 " + new string('y', 500);
        await app.PostAsync(app.Sns.Sign(foreign));
        string arn = (await StatusOf(app)).GetProperty("refusals")[0].GetProperty("topicArn").GetString()!;
        Assert.StartsWith("<script>yyy", arn, StringComparison.Ordinal);
        Assert.InRange(arn.Length, 50, 100);
        Assert.True(System.Text.Ascii.IsValid(arn));
    }

    [Fact]
    public async Task A_refusal_is_no_finding_after_a_day() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync("no JSON");
        app.Clock.Advance(TimeSpan.FromDays(1) - TimeSpan.FromSeconds(1));
        Assert.Contains("hint refused", await FindingsAsync(app));
        app.Clock.Advance(TimeSpan.FromSeconds(1));
        Assert.DoesNotContain("hint refused", await FindingsAsync(app));
        Assert.Single((await StatusOf(app)).GetProperty("refusals").EnumerateArray());
    }

    [Fact]
    public async Task A_certificate_that_cannot_be_had_is_a_warning() {
        await using var app = await ReceiverApp.StartAsync();
        app.Sns.Answer = (_, _) => Task.FromResult(new HttpResponseMessage(HttpStatusCode.ServiceUnavailable));
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        Assert.Contains("warning sns-unreachable", await FindingsAsync(app));
    }

    [Fact]
    public async Task A_version_that_a_setting_refuses_is_a_warning_with_the_command_for_that_topic() {
        await using var app = await ReceiverApp.StartAsync(["Sns:MinimumSignatureVersion=2"]);
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["a@example.com"]), version: "1"));
        var finding = await FindingAsync(app, "signature-version-refused");
        Assert.Equal("warning", finding.GetProperty("severity").GetString());
        Assert.Equal($"aws sns set-topic-attributes --topic-arn {Topic} --attribute-name SignatureVersion --attribute-value 2", finding.GetProperty("mend").GetString());
    }

    // ---- Rates

    public static TheoryData<int, int, int, int, string, string> Verdicts => new() {
        { 199, 199, 20, 5, "too-few", "too-few" }, { 200, 200, 0, 0, "ok", "ok" }, { 200, 1000, 3, 0, "ok", "ok" }, { 200, 1000, 4, 1, "advice", "review" },
        { 200, 1500, 9, 1, "advice", "advice" }, { 200, 1500, 10, 8, "review", "pause" }, { 200, 200, 19, 1, "review", "pause" }, { 200, 200, 20, 0, "pause", "ok" },
        { 0, 200, 20, 1, "unknown", "pause" }, { 200, 0, 20, 1, "pause", "unknown" },
    };

    [Theory]
    [MemberData(nameof(Verdicts))]
    public async Task The_rates_of_a_day_and_a_week_stand_against_the_lines_of_SES(int sends, int deliveries, int bounces, int complaints, string bounced, string complained) {
        await using var app = await ReceiverApp.StartAsync();
        if (sends > 0) await app.PostAsync(app.Sns.Signed(ToMany("Send", sends)));
        if (deliveries > 0) await app.PostAsync(app.Sns.Signed(ToMany("Delivery", deliveries)));
        if (bounces > 0) await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(Addresses(bounces))));
        if (complaints > 0) await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(Addresses(complaints))));
        var day = (await StatusOf(app)).GetProperty("rates")[0];
        Assert.Equal((sends, deliveries, bounces, complaints), (day.GetProperty("sends").GetInt32(), day.GetProperty("deliveries").GetInt32(),
            day.GetProperty("bounces").GetInt32(), day.GetProperty("complaints").GetInt32()));
        Assert.Equal((bounced, complained), (day.GetProperty("bounceVerdict").GetString(), day.GetProperty("complaintVerdict").GetString()));
        string[] findings = await FindingsAsync(app);
        Assert.Equal(bounced is "review" or "pause" ? 2 : 0, findings.Count(text => text == "error bounce-rate"));
        Assert.Equal(bounced is "advice" ? 2 : 0, findings.Count(text => text == "warning bounce-rate"));
        Assert.Equal(complained is "review" or "pause" ? 2 : 0, findings.Count(text => text == "error complaint-rate"));
        Assert.Equal(complained is "advice" ? 2 : 0, findings.Count(text => text == "warning complaint-rate"));
        Assert.Equal(sends == 0 || deliveries == 0, findings.Contains("hint rates-unknown"));
    }

    [Fact]
    public async Task The_day_ends_before_the_week() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        app.Clock.Advance(TimeSpan.FromHours(26));
        var rates = (await StatusOf(app)).GetProperty("rates");
        Assert.Equal((0, 1), (rates[0].GetProperty("bounces").GetInt32(), rates[1].GetProperty("bounces").GetInt32()));
        app.Clock.Advance(TimeSpan.FromDays(6));
        Assert.Equal(0, (await StatusOf(app)).GetProperty("rates")[1].GetProperty("bounces").GetInt32());
    }

    // ---- Clock, certificates, disk, store

    [Theory]
    [InlineData(-301, "error clock-behind")]
    [InlineData(-299, "")]
    [InlineData(0, "")]
    [InlineData(299, "")]
    [InlineData(301, "hint messages-late")]
    public async Task The_clock_is_held_against_the_Timestamp_of_twenty_genuine_messages(int secondsLate, string finding) {
        await using var app = await ReceiverApp.StartAsync();
        for (int i = 0; i < 20; i++) await app.PostAsync(Sent(app, TimeSpan.FromSeconds(secondsLate + i)));
        Assert.Equal(finding, string.Join(',', (await FindingsAsync(app)).Where(text => text.Contains("clock", StringComparison.Ordinal) || text.Contains("late", StringComparison.Ordinal))));
    }

    [Fact]
    public async Task A_late_message_among_punctual_ones_says_nothing_of_the_clock_nor_does_a_forged_one() {
        await using var app = await ReceiverApp.StartAsync();
        for (int i = 0; i < 19; i++) await app.PostAsync(Sent(app, TimeSpan.FromHours(2)));
        Assert.DoesNotContain("hint messages-late", await FindingsAsync(app));
        await app.PostAsync(Sent(app, TimeSpan.FromSeconds(1)));
        var forged = JsonNode.Parse(Sent(app, TimeSpan.FromHours(-2)))!;
        forged["Message"] = "forged";
        await app.PostAsync(forged.ToJsonString());
        Assert.DoesNotContain(await FindingsAsync(app), text => text.Contains("clock", StringComparison.Ordinal) || text.Contains("late", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(-1, "warning certificate-ends")]
    [InlineData(13, "hint certificate-ends")]
    [InlineData(15, "")]
    public async Task The_newest_certificate_is_told_of_before_it_ends(int days, string finding) {
        await using var app = await ReceiverApp.StartAsync();
        string folder = Path.Combine(app.Folder, "certificates");
        Directory.CreateDirectory(folder);
        using var key = System.Security.Cryptography.RSA.Create(2048);
        var (from, now) = (app.Clock.GetUtcNow().AddYears(-1), app.Clock.GetUtcNow());
        File.WriteAllText(Path.Combine(folder, "SimpleNotificationService-0a.pem"), FakeSns.PemOf(key, from, now.AddDays(days)));
        File.WriteAllText(Path.Combine(folder, "SimpleNotificationService-0b.pem"), FakeSns.PemOf(key, from, now.AddDays(-100)));
        File.WriteAllText(Path.Combine(folder, "SimpleNotificationService-0c.pem"), "no certificate");
        Assert.Equal(finding, string.Join(',', (await FindingsAsync(app)).Where(text => text.Contains("certificate", StringComparison.Ordinal))));
    }

    [Fact]
    public async Task A_journal_that_cannot_be_written_is_an_error() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        disk.OnWrite = WatchedDisk.WriteHalfAndFail;
        Assert.Equal(503, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status);
        Assert.Contains("error journal-unwritable", await FindingsAsync(app));
        disk.OnWrite = RandomAccess.Write;
        Assert.DoesNotContain("error journal-unwritable", await FindingsAsync(app));
    }

    [Fact]
    public async Task When_the_store_cannot_be_read_the_answer_is_503_with_what_is_known() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync("no JSON");
        await app.Services.GetRequiredService<LiteDbStore>().StopAsync(TestContext.Current.CancellationToken);
        var (code, status) = await app.GetAsync("/status");
        Assert.Equal((503, false), (code, status.GetProperty("ok").GetBoolean()));
        Assert.Equal(["error store-unavailable", "hint refused"], await FindingsAsync(app));
        Assert.Equal(JsonValueKind.Null, status.GetProperty("store").ValueKind);
        Assert.Empty(status.GetProperty("rates").EnumerateArray());
        Assert.Single(status.GetProperty("refusals").EnumerateArray());
        Assert.Equal(Topic, status.GetProperty("topics")[0].GetProperty("topicArn").GetString());
    }

    [Fact]
    public async Task Every_finding_says_something_and_offers_a_command() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync("no JSON");
        await app.PostAsync(FakeSns.SesBounce(["jane@example.com"]));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["a@example.com"], "mail-1"), version: "1"));
        foreach (var finding in (await StatusOf(app)).GetProperty("findings").EnumerateArray())
            Assert.All((string[])["code", "severity", "says", "mend"], name => Assert.NotEmpty(finding.GetProperty(name).GetString()!));
    }
}
