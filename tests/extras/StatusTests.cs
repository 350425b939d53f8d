using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.Configuration;
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
        Assert.Equal("""{"window":"24h","mails":0,"sends":0,"deliveries":0,"bounces":1,"complaints":0,"bounceRate":null,"complaintRate":null,"bounceVerdict":"unknown","complaintVerdict":"unknown"}""",
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
    public async Task Where_a_queue_is_read_the_command_is_a_mail_that_should_come_by_it() {
        await using var app = await ReceiverApp.StartAsync();
        app.Services.GetRequiredService<IConfiguration>()["Sqs:QueueUrl"] = "https://sqs.us-east-1.amazonaws.com/123456789012/email-feedback";
        Assert.Contains("bounce@simulator.amazonses.com", (await FindingAsync(app, "topic-unconfirmed")).GetProperty("mend").GetString(), StringComparison.Ordinal);
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
        Assert.Equal(["warning formats-doubled", "hint rates-unknown"], await FindingsAsync(app));
        Assert.False((await StatusOf(app)).GetProperty("ok").GetBoolean());
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
        Assert.Equal(["error topic-unconfirmed", "warning raw-delivery", "hint rates-unknown"], await FindingsAsync(app));
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
    public async Task Of_several_alike_the_last_is_told_and_how_many_there_were() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync("no JSON");
        app.Clock.Advance(TimeSpan.FromSeconds(1));
        await app.PostAsync("no JSON");
        Assert.StartsWith("2 of the last 50 refused messages, the last at 2026-11-24 08:00:01Z of no topic: 400, ",
            (await FindingAsync(app, "refused")).GetProperty("says").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_certificate_with_too_short_a_key_is_a_warning_and_the_command_shows_the_folder() {
        await using var app = await ReceiverApp.StartAsync(sns: new FakeSns(keySize: 1024));
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        var finding = await FindingAsync(app, "certificate-unusable");
        Assert.Equal(("warning", "ls -l " + Path.Combine(app.Folder, "certificates")), (finding.GetProperty("severity").GetString(), finding.GetProperty("mend").GetString()));
    }

    [Fact]
    public async Task A_confirmation_that_SNS_does_not_take_is_a_warning() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status); // and the certificate is there
        app.Sns.Answer = (_, _) => Task.FromResult(new HttpResponseMessage(HttpStatusCode.ServiceUnavailable));
        Assert.Equal(503, (await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()))).Status);
        Assert.Contains("warning sns-unreachable", await FindingsAsync(app));
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

    // The verdict itself needs a host whose OpenSSL forbids it; this is what the receiver does with it there.
    [Fact]
    public async Task A_host_that_forbids_SHA_1_is_an_error_with_the_command_for_that_topic() {
        await using var app = await ReceiverApp.StartAsync();
        var body = System.Text.Encoding.UTF8.GetBytes(app.Sns.Signed(FakeSns.SesBounce(["a@example.com"]), version: "1"));
        Assert.Null(Envelope.Read(new(body), out var envelope));
        app.Services.GetRequiredService<Intake>().Refuse(Verdict.Sha1Forbidden, envelope);
        Assert.Equal(["error topic-unconfirmed", "error sha1-forbidden", "hint rates-unknown"], await FindingsAsync(app));
        var finding = await FindingAsync(app, "sha1-forbidden");
        Assert.Equal("error", finding.GetProperty("severity").GetString());
        Assert.Equal($"1 of the last 50 refused messages, the last at 2026-11-24 08:00:00Z of {Topic}: 503, this host forbids SHA-1: set SignatureVersion 2 on the topic.",
            finding.GetProperty("says").GetString());
        Assert.Equal($"aws sns set-topic-attributes --topic-arn {Topic} --attribute-name SignatureVersion --attribute-value 2", finding.GetProperty("mend").GetString());
    }

    [Fact]
    public async Task A_topic_of_ours_is_named_whole_however_long() {
        string topic = "arn:aws:sns:us-east-1:123456789012:" + new string('a', 256);
        await using var app = await ReceiverApp.StartAsync(["Sns:TopicArns:0=" + topic, "Sns:MinimumSignatureVersion=2"]);
        var envelope = app.Sns.Notification(FakeSns.SesBounce(["a@example.com"]), version: "1");
        envelope["TopicArn"] = topic;
        await app.PostAsync(app.Sns.Sign(envelope));
        Assert.Equal(topic, (await StatusOf(app)).GetProperty("refusals")[0].GetProperty("topicArn").GetString());
        var finding = await FindingAsync(app, "signature-version-refused");
        Assert.Equal("warning", finding.GetProperty("severity").GetString());
        Assert.Contains($" --topic-arn {topic} ", finding.GetProperty("mend").GetString(), StringComparison.Ordinal);
    }

    // ---- Rates

    public static TheoryData<int, int, int, int, string, string> Verdicts => new() {
        { 199, 179, 20, 5, "too-few", "too-few" }, { 200, 200, 0, 0, "ok", "ok" }, { 1200, 1000, 23, 0, "ok", "ok" }, { 1200, 1000, 24, 1, "advice", "review" },
        { 1600, 1500, 79, 1, "advice", "advice" }, { 1600, 1500, 80, 8, "review", "pause" }, { 1000, 200, 99, 1, "review", "pause" }, { 440, 396, 44, 0, "pause", "ok" },
        { 0, 180, 20, 1, "pause", "too-few" }, { 0, 380, 20, 2, "review", "pause" }, { 200, 0, 20, 1, "pause", "unknown" }, { 0, 0, 20, 1, "unknown", "unknown" },
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
        Assert.Equal(deliveries == 0, findings.Contains("hint rates-unknown"));
    }

    [Theory]
    [InlineData("Bounce", "No Send or Delivery came in 7 days: no rates can be told.")]
    [InlineData("Send", "No Delivery came in 7 days: the rate of complaints cannot be told.")]
    public async Task What_must_be_collected_for_rates_is_told_with_a_command_that_keeps_all_else(string comes, string says) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(ToMany(comes, 1)));
        var finding = await FindingAsync(app, "rates-unknown");
        Assert.Equal(says, finding.GetProperty("says").GetString());
        Assert.EndsWith("--event-destination 'Enabled=true,MatchingEventTypes=SEND,DELIVERY,BOUNCE,COMPLAINT,REJECT,DELIVERY_DELAY,RENDERING_FAILURE,SUBSCRIPTION,"
            + $"SnsDestination={{TopicArn={Topic}}}'", finding.GetProperty("mend").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_rate_over_a_line_is_told_in_percent_with_what_it_is_of() {
        await using var app = await ReceiverApp.StartAsync();
        foreach (string message in (string[])[ToMany("Send", 450), ToMany("Delivery", 400), FakeSns.SesBounce(Addresses(9)), FakeSns.SesComplaint(Addresses(1))])
            await app.PostAsync(app.Sns.Signed(message));
        Assert.Equal(["0.25 % of 400 mails in 24h were complained about: over SES's line (review).", "0.25 % of 400 mails in 7d were complained about: over SES's line (review).",
            "2 % of 450 mails in 24h bounced for good: over SES's line (advice).", "2 % of 450 mails in 7d bounced for good: over SES's line (advice)."],
            (await StatusOf(app)).GetProperty("findings").EnumerateArray().Where(finding => finding.GetProperty("code").GetString()!.EndsWith("-rate", StringComparison.Ordinal))
                .Select(finding => finding.GetProperty("says").GetString()!).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task The_day_ends_before_the_week_and_begins_with_a_whole_hour() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await app.PostAsync(app.Sns.Bounce("of-tomorrow@example.com", "mail-2", at: "2026-11-26T07:00:00Z"));
        async Task<(int Day, int Week)> BouncesAsync() => (await StatusOf(app)).GetProperty("rates") is var rates
            ? (rates[0].GetProperty("bounces").GetInt32(), rates[1].GetProperty("bounces").GetInt32()) : default;
        app.Clock.Advance(TimeSpan.FromHours(24));
        Assert.Equal((1, 1), await BouncesAsync());
        app.Clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal((0, 1), await BouncesAsync());
        app.Clock.Advance(TimeSpan.FromDays(10));
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
        for (int i = 24; i >= 0; i--) await app.PostAsync(Sent(app, TimeSpan.FromSeconds(secondsLate + i)));
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
        File.WriteAllText(Path.Combine(folder, "of-somebody-else.pem"), FakeSns.PemOf(key, from, now.AddDays(1000)));
        Assert.Equal(finding, string.Join(',', (await FindingsAsync(app)).Where(text => text.Contains("certificate", StringComparison.Ordinal))));
    }

    [Fact]
    public async Task A_journal_that_cannot_be_written_is_an_error() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        disk.OnWrite = WatchedDisk.WriteHalfAndFail;
        Assert.Equal(503, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status);
        Assert.Equal(["error journal-unwritable", "error topic-unconfirmed", "warning refused", "hint rates-unknown"], await FindingsAsync(app));
        disk.OnWrite = RandomAccess.Write;
        Assert.DoesNotContain("error journal-unwritable", await FindingsAsync(app));
    }

    /// <summary>A disk of a size, with as much room as a test wants.</summary>
    sealed class SmallDisk(long size, long left) : Disk {
        public override long Size(string folder) => size;
        public override long Free(string folder) => left;
    }

    [Theory]
    [InlineData(10_000, 1024, "")]
    [InlineData(10_000, 1023, "warning disk-low")]
    [InlineData(10_000, 256, "warning disk-low")]
    [InlineData(10_000, 255, "error disk-low")]
    [InlineData(40_000, 2000, "")]
    [InlineData(40_000, 1999, "warning disk-low")]
    public async Task Less_than_a_gibibyte_or_a_twentieth_of_the_journals_disk_is_little_room(long mebibytes, long left, string expected) {
        await using var app = await ReceiverApp.StartAsync(disk: new SmallDisk(mebibytes << 20, left << 20));
        var status = await StatusOf(app);
        Assert.Equal($$"""{"freeBytes":{{left << 20}},"totalBytes":{{mebibytes << 20}}}""", status.GetProperty("disk").GetRawText());
        var low = status.GetProperty("findings").EnumerateArray().Where(finding => finding.GetProperty("code").GetString() == "disk-low").ToArray();
        Assert.Equal(expected, string.Join(',', low.Select(finding => $"{finding.GetProperty("severity")} {finding.GetProperty("code")}")));
        Assert.All(low, finding => Assert.Equal(($"{left} MiB are left on the disk of the journal.", $"df -h {app.JournalFolder}; du -sh {app.JournalFolder}"),
            (finding.GetProperty("says").GetString(), finding.GetProperty("mend").GetString())));
    }

    [Fact]
    public async Task A_follower_that_has_not_come_on_for_over_a_minute_is_a_warning() {
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        Directory.CreateDirectory(Path.Combine(folder, "feedback.db.open")); // where a file must be before the first write to feedback.db
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        app.Clock.Advance(TimeSpan.FromMinutes(1));
        JsonElement status = default;
        await Eventually.TrueAsync(async () => (status = await StatusOf(app)).GetProperty("store").GetProperty("behindSeconds").GetDouble() == 60);
        Assert.DoesNotContain("follower-behind", status.GetRawText(), StringComparison.Ordinal);
        app.Clock.Advance(TimeSpan.FromSeconds(1));
        status = await StatusOf(app);
        var finding = status.GetProperty("findings").EnumerateArray().Single(finding => finding.GetProperty("code").GetString() == "follower-behind");
        long bytes = new FileInfo(Lines.SegmentIn(app.Folder)).Length;
        Assert.Equal(("warning", $"{bytes} bytes of the journal wait to be copied, for 1 minutes: history and statistics are not complete yet."),
            (finding.GetProperty("severity").GetString(), finding.GetProperty("says").GetString()));
        Assert.Equal((bytes, 61.0), (status.GetProperty("store").GetProperty("behindBytes").GetInt64(), status.GetProperty("store").GetProperty("behindSeconds").GetDouble()));
    }

    [Fact]
    public async Task That_no_look_up_can_be_answered_is_an_error() {
        string alias = Lines.Alias([.. Enumerable.Repeat((byte)7, 32)], "jane@example.com"); // of whom no key is there
        string folder = Lines.FolderOf([Lines.Forget(alias)]);
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        Assert.Contains("error lookups-unavailable", await FindingsAsync(app));
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

    [Fact]
    public async Task A_simulator_s_certificate_that_is_believed_in_Production_is_an_error() {
        await using var app = await ReceiverApp.StartAsync();
        string path = Path.Combine(app.Folder, "certificates", "SimpleNotificationService-5.pem");
        using var key = System.Security.Cryptography.RSA.Create(2048);
        using var certificate = new System.Security.Cryptography.X509Certificates.CertificateRequest("CN=FeedbackReceiver simulator", key,
            System.Security.Cryptography.HashAlgorithmName.SHA256, System.Security.Cryptography.RSASignaturePadding.Pkcs1).CreateSelfSigned(
                new(2000, 1, 1, 0, 0, 0, TimeSpan.Zero), new(2046, 1, 1, 0, 0, 0, TimeSpan.Zero));
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, certificate.ExportCertificatePem());
        Assert.StartsWith("rm " + path, (await FindingAsync(app, "simulator-trusted")).GetProperty("mend").GetString(), StringComparison.Ordinal);
        Assert.Contains("error simulator-trusted", await FindingsAsync(app));
        await using var development = await ReceiverApp.StartAsync(["environment=Development"], Directory.CreateTempSubdirectory("receiver-").FullName);
        File.Copy(path, Path.Combine(Directory.CreateDirectory(Path.Combine(development.Folder, "certificates")).FullName, Path.GetFileName(path)));
        Assert.DoesNotContain("error simulator-trusted", await FindingsAsync(development));
    }
}
