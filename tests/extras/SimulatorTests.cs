using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;

/// <summary>simulate and replay, as a developer runs them beside a receiver: as processes of their own.</summary>
public sealed class SimulatorTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    internal static Task<(int Code, string Out, string Error)> RunAsync(ReceiverApp app, params string[] args) =>
        RunAsync("Development", Path.Combine(app.Folder, "certificates"), [.. args, "--url", app.Webhook.BaseAddress!.ToString()]);

    static async Task<(int Code, string Out, string Error)> RunAsync(string environment, string certificates, params string[] args) {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "FeedbackReceiver.dll"), .. args]) {
            WorkingDirectory = Directory.CreateTempSubdirectory("simulator-").FullName,
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        };
        start.Environment["DOTNET_ENVIRONMENT"] = environment;
        start.Environment["Sns__TopicArns__0"] = FakeSns.TopicArn;
        start.Environment["Sns__CertificateDirectory"] = certificates;
        start.Environment["Kestrel__Endpoints__Webhook__Url"] = "http://127.0.0.1:1"; // nobody listens there
        using var program = Process.Start(start)!;
        try {
            var (output, error) = (program.StandardOutput.ReadToEndAsync(Cancellation), program.StandardError.ReadToEndAsync(Cancellation));
            await program.WaitForExitAsync(Cancellation).WaitAsync(TimeSpan.FromMinutes(10), Cancellation);
            return (program.ExitCode, await output, await error);
        } finally { program.Kill(); }
    }

    static async Task<JsonElement[]> SimulatedAsync(ReceiverApp app, string kind, params string[] options) {
        Assert.Equal(0, (await RunAsync(app, ["simulate", kind, "jane@example.com", .. options])).Code);
        return await app.HistoryAsync("jane@example.com");
    }

    [Theory]
    [InlineData("bounce", "Bounce", "Permanent", "bounce")]
    [InlineData("soft", "Bounce", "Transient", null)]
    [InlineData("complaint", "Complaint", "abuse", "complaint")]
    [InlineData("not-spam", "Complaint", "not-spam", null)]
    [InlineData("delivery", "Delivery", null, null)]
    [InlineData("unsubscribe", "Subscription", "unsubscribeAll", "unsubscribe")]
    public async Task Each_kind_is_believed_and_judged_as_SESs_own(string simulated, string kind, string? type, string? reason) {
        await using var app = await ReceiverApp.StartAsync();
        var told = Assert.Single(await SimulatedAsync(app, simulated));
        Assert.Equal((kind, type), (told.Text("kind"), told.Text("type")));
        Assert.Equal("Your November offers", told.Text("subject"));
        Assert.Equal("""["november-offers"]""", told.GetProperty("tags").GetProperty("campaign").GetRawText());
        Assert.Equal(reason, (await app.GetAsync("/suppressed/jane@example.com")).Json.Text("reason"));
        Assert.Empty(app.Sns.Requests);
    }

    [Fact]
    public async Task A_holiday_follows_a_delivery_of_the_same_mail_so_it_is_no_soft_bounce() {
        await using var app = await ReceiverApp.StartAsync(["Suppression:SoftBounceLimit=1"]);
        var events = await SimulatedAsync(app, "ooto");
        Assert.Equal(["General", null], events.Select(each => each.Text("subtype")));
        Assert.Single(events.Select(each => each.Text("mailId")).Distinct());
        Assert.Equal(404, await app.StatusAsync("/suppressed/jane@example.com"));
    }

    [Fact]
    public async Task A_mails_id_carries_its_time_as_SESs_do() {
        await using var app = await ReceiverApp.StartAsync();
        var told = Assert.Single(await SimulatedAsync(app, "bounce"));
        long sent = long.Parse(told.Text("mailId")!.AsSpan(4, 12), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
        Assert.InRange(told.GetProperty("at").GetDateTimeOffset().ToUnixTimeMilliseconds() - sent, 1, 60_000);
        Assert.Matches("^0100[0-9a-f]{12}-[0-9a-f-]{36}-000000$", told.Text("mailId"));
    }

    [Fact]
    public async Task Times_makes_so_many_mails() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("200 kept (3 times)\n", (await RunAsync(app, "simulate", "soft", "jane@example.com", "--times", "3")).Out);
        Assert.Equal(3, (await app.HistoryAsync("jane@example.com")).Select(each => each.Text("id")).Distinct().Count());
    }

    [Fact]
    public async Task The_identity_format_is_that_of_notifications_without_tags() {
        await using var app = await ReceiverApp.StartAsync();
        var told = Assert.Single(await SimulatedAsync(app, "complaint", "--identity-format"));
        Assert.False(told.TryGetProperty("tags", out _));
        Assert.Contains("""notificationType\":\"Complaint""", await JournalAsync(app), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("1", "--v1")]
    [InlineData("2")]
    public async Task Either_signature_version_can_be_tried(string version, params string[] options) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Single(await SimulatedAsync(app, "bounce", options));
        Assert.Contains($"""
            "SignatureVersion":"{version}"
            """, await JournalAsync(app), StringComparison.Ordinal);
    }

    static Task<string> JournalAsync(ReceiverApp app) =>
        File.ReadAllTextAsync(Path.Combine(app.JournalFolder, "00000001.ndjson"), Cancellation);

    [Fact]
    public async Task A_confirmation_is_believed_but_confirmed_by_SNS_alone() {
        await using var app = await ReceiverApp.StartAsync();
        app.Sns.Answer = (_, _) => Task.FromResult(new HttpResponseMessage(System.Net.HttpStatusCode.BadRequest));
        var (code, output, _) = await RunAsync(app, "simulate", "confirm");
        Assert.Equal(1, code);
        Assert.StartsWith("503 the subscription could not be confirmed now\nIt says 200 only once", output, StringComparison.Ordinal);
        Assert.Contains("Action=ConfirmSubscription", Assert.Single(app.Sns.Requests), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_key_is_its_owners_alone_is_made_once_and_is_no_certificate() {
        await using var app = await ReceiverApp.StartAsync();
        await SimulatedAsync(app, "bounce");
        string[] files = [.. Directory.GetFiles(Path.Combine(app.Folder, "certificates")).Select(file => Path.GetFileName(file)).Order()];
        Assert.Matches("^SimpleNotificationService-[0-9a-f]{32}\\.pem$", files[0]);
        Assert.Equal([files[0], "simulator-key.pem"], files);
        string key = Path.Combine(app.Folder, "certificates", "simulator-key.pem"), text = await File.ReadAllTextAsync(key, Cancellation);
        string certificate = await File.ReadAllTextAsync(Path.Combine(app.Folder, "certificates", files[0]), Cancellation);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(key));
        Assert.DoesNotContain("PRIVATE", certificate, StringComparison.Ordinal);
        Assert.Equal(2, (await SimulatedAsync(app, "bounce")).Length);
        Assert.Equal(text, await File.ReadAllTextAsync(key, Cancellation));
    }

    [Theory]
    [InlineData("bounce", "jane@example.com")]
    [InlineData("day")]
    [InlineData("sign", "-")]
    public async Task In_Production_it_signs_nothing_and_says_so_in_one_line(params string[] what) {
        string certificates = Directory.CreateTempSubdirectory("simulator-").FullName;
        var (code, output, error) = await RunAsync("Production", certificates, ["simulate", .. what]);
        Assert.Equal((1, ""), (code, output));
        Assert.Matches("^FeedbackReceiver: simulate .*Development only.*Production\n$", error);
        Assert.Empty(Directory.GetFiles(certificates));
    }

    [Theory]
    [InlineData("simulate")]
    [InlineData("simulate", "nonsense", "jane@example.com")]
    [InlineData("simulate", "bounce")]
    [InlineData("simulate", "bounce", "jane@example.com", "--v2")]
    [InlineData("simulate", "bounce", "jane@example.com", "--times")]
    [InlineData("simulate", "bounce", "jane@example.com", "--times", "0")]
    [InlineData("simulate", "bounce", "jane@example.com", "--times", "many")]
    [InlineData("simulate", "bounce", "jane@example.com", "--new-id")]
    [InlineData("simulate", "unsubscribe", "jane@example.com", "--identity-format")]
    [InlineData("simulate", "bounce", "no address")]
    [InlineData("simulate", "day", "--times", "2")]
    [InlineData("simulate", "sign", "/nowhere/at/all.json")]
    [InlineData("replay")]
    [InlineData("replay", "x.json", "--v1")]
    [InlineData("replay", "/nowhere/at/all.json")]
    [InlineData("simulate", "bounce", "jane@example.com", "--url", "ftp://example.com")]
    public async Task What_is_asked_for_wrongly_posts_nothing(params string[] args) {
        string certificates = Directory.CreateTempSubdirectory("simulator-").FullName;
        var (code, output, error) = await RunAsync("Development", certificates, args);
        Assert.Equal((1, ""), (code, output));
        Assert.StartsWith("FeedbackReceiver: ", error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal); // no stack trace
        Assert.DoesNotContain("cannot be reached", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task It_posts_where_the_settings_say_the_receiver_listens_and_tells_when_nobody_does() {
        string certificates = Directory.CreateTempSubdirectory("simulator-").FullName;
        var (code, _, error) = await RunAsync("Development", certificates, "simulate", "bounce", "jane@example.com");
        Assert.Equal(1, code);
        Assert.Equal("FeedbackReceiver: http://127.0.0.1:1/sns cannot be reached (0 posted before): is the receiver running?\n", error);
    }

    [Fact]
    public async Task A_receiver_that_reads_other_certificates_does_not_believe_it_and_the_reason_is_told() {
        await using var app = await ReceiverApp.StartAsync();
        app.Sns.Answer = (_, _) => Task.FromResult(new HttpResponseMessage(System.Net.HttpStatusCode.NotFound));
        var (code, output, error) = await RunAsync("Development", Directory.CreateTempSubdirectory("simulator-").FullName,
            "simulate", "bounce", "jane@example.com", "--url", app.Webhook.BaseAddress!.ToString());
        Assert.Equal((1, "503 the signing certificate cannot be had now\n"), (code, output));
        Assert.Contains("start both in one folder", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_edited_envelope_is_signed_anew() {
        await using var app = await ReceiverApp.StartAsync();
        string file = Path.Combine(app.Folder, "edited.json");
        string bounce = app.Sns.Bounce("jane@example.com").Replace("jane@", "joe@", StringComparison.Ordinal);
        await File.WriteAllTextAsync(file, bounce, Cancellation);
        var (code, signed, _) = await RunAsync(app, "simulate", "sign", file, "--new-id", "--v1");
        Assert.Equal(0, code);
        Assert.Equal((200, "kept"), await app.PostAsync(signed));
        Assert.Equal(200, await app.StatusAsync("/suppressed/joe@example.com"));
        JsonNode before = JsonNode.Parse(await File.ReadAllTextAsync(file, Cancellation))!, after = JsonNode.Parse(signed)!;
        Assert.NotEqual($"{before["MessageId"]}", $"{after["MessageId"]}");
        Assert.Equal($"{before["UnsubscribeURL"]}", $"{after["UnsubscribeURL"]}");
    }

    [Fact]
    public async Task A_replay_tells_what_came_of_each() {
        await using var app = await ReceiverApp.StartAsync();
        (string one, string lines) = (Path.Combine(app.Folder, "one.json"), Path.Combine(app.Folder, "lines.ndjson"));
        string bounce = JsonNode.Parse(app.Sns.Bounce("jane@example.com"))!.ToJsonString(new() { WriteIndented = true });
        await File.WriteAllTextAsync(one, bounce, Cancellation);
        var journaled = new Entry(DateTimeOffset.UnixEpoch,
            JsonSerializer.Deserialize(app.Sns.Bounce("joe@example.com", "mail-2"), SnsJson.Default.Envelope));
        await File.WriteAllLinesAsync(lines, [System.Text.Encoding.UTF8.GetString(journaled.ToLine()).Trim(), "",
            app.Sns.Bounce("sam@example.com", "mail-3").Replace("sam@", "tom@", StringComparison.Ordinal),
            """{"at":"2026-11-24T08:00:00Z","lift":{"address":"jane@example.com"}}""", "torn",
            """{"at":"2026-11-24T08:00:00Z","message":{"Type":"SubscriptionConfirmation"}}"""], Cancellation);
        var (code, output, _) = await RunAsync(app, "replay", one, lines);
        Assert.Equal(1, code);
        Assert.Equal([$"{lines}:1: 200 kept", $"{lines}:3: 403 the signature does not fit", $"{lines}:4: skipped, no message",
            $"{lines}:5: skipped, no JSON object", $"{lines}:6: skipped, a journal keeps no tokens", $"{one}: 200 kept"],
            output.Split('\n').Where(line => line.StartsWith('/')).Order(StringComparer.Ordinal));
        Assert.EndsWith("3 posted, 3 skipped\n200 kept (2 times)\n403 the signature does not fit\n", output, StringComparison.Ordinal);
        foreach (string name in (string[])["jane", "joe"]) Assert.Equal(200, await app.StatusAsync($"/suppressed/{name}@example.com"));
        Assert.Equal(404, await app.StatusAsync("/suppressed/sam@example.com"));
    }

    [Fact]
    public async Task The_receivers_own_journal_can_be_replayed_and_nothing_is_counted_twice() {
        await using var app = await ReceiverApp.StartAsync();
        for (int i = 0; i < 300; i++) Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce($"user{i}@example.com", $"mail-{i}"))).Status);
        string journal = Path.Combine(app.JournalFolder, "00000001.ndjson");
        var (code, output, _) = await RunAsync("Production", Path.Combine(app.Folder, "certificates"),
            "replay", journal, "--url", $"{app.Webhook.BaseAddress}");
        Assert.Equal(0, code);
        Assert.EndsWith("300 posted, 0 skipped\n200 kept (300 times)\n", output, StringComparison.Ordinal);
        Assert.Single(await app.HistoryAsync("user7@example.com"));
    }

    [Fact]
    public async Task A_day_has_a_bad_mailing_in_the_middle_that_lifts_the_complaint_rate_to_six_in_a_thousand() {
        await using var app = await ReceiverApp.StartAsync();
        var (code, output, error) = await RunAsync(app, "simulate", "day");
        Assert.Equal((0, "200 kept (20,107 times)\n"), (code, output));
        Assert.Contains(" of 20,107 posted\n", error, StringComparison.Ordinal);

        await app.CaughtUpAsync(seconds: 180);
        var store = app.Services.GetRequiredService<IFeedbackStore>();
        var counts = await store.CountsAsync(hourly: true, DateTimeOffset.UtcNow.AddHours(-24));
        Assert.Equal(new Rates(10_000, 9_833, 110, 59), Rates.Of(counts));
        Assert.Equal("0.60", (100 * Rates.Of(counts).ComplaintRate!.Value).ToString("F2", CultureInfo.InvariantCulture));
        Assert.All(counts, count => Assert.True(count.At <= DateTimeOffset.UtcNow));
        var complaints = new List<Feedback>();
        var query = new EventQuery(Kind: "Complaint", Type: "abuse");
        await foreach (var (_, feedback) in store.EventsAsync(query, Cancellation)) complaints.Add(feedback);
        Assert.Equal(56, complaints.Count(complaint => complaint.Subject == "We miss you!"));
    }
}
