using System.Runtime.CompilerServices;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;

/// <summary>Alerts:Url. The team hears of what goes wrong once, and once that it is well again.</summary>
public sealed class AlertTests {
    /// <summary>A disk with room as the test wants. Each check asks for it first, and once.</summary>
    sealed class RoomyDisk : Disk {
        int _looks;
        public int Looks => Volatile.Read(ref _looks);
        public long Left { get; set; } = 1L << 40;
        public override long Free(string folder) {
            Interlocked.Increment(ref _looks);
            return Left;
        }
    }

    readonly RoomyDisk _disk = new();

    Task<ReceiverApp> StartAsync(Endpoint endpoint, string? folder = null, params string[] settings) =>
        ReceiverApp.StartAsync(["Alerts:Url=" + endpoint.Url + "/secret-hook", "Alerts:SilenceDays=0", .. settings], folder, disk: _disk);

    /// <summary>A whole check from now on: the one after it has begun.</summary>
    async Task CheckedAsync(ReceiverApp app) {
        int from = _disk.Looks;
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(10));
            return _disk.Looks >= from + 2;
        });
    }

    static string[] Said(Endpoint endpoint) => [.. endpoint.Posted.Where(posted => posted.Status == 200).Select(posted => posted.Json.GetProperty("text").GetString()!)];

    static async Task PostAsync(ReceiverApp app, string message) {
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(message))).Status);
        await app.CaughtUpAsync();
    }

    // So many recipients, fifty a mail.
    static async Task SentAsync(ReceiverApp app, string kind, int recipients) {
        foreach (string[] each in Enumerable.Range(0, recipients).Select(i => $"{kind}{i}@example.com").Chunk(50)) {
            string list = JsonSerializer.Serialize(each), mail = Guid.NewGuid().ToString("N");
            await PostAsync(app, $$$"""
                {"eventType":"{{{kind}}}","delivery":{"timestamp":"2026-11-24T08:00:00Z","recipients":{{{list}}}},"mail":{"timestamp":"2026-11-24T08:00:00Z","messageId":"m-{{{mail}}}","destination":{{{list}}}} }
                """);
        }
    }

    static async Task ComplainedAsync(ReceiverApp app, int number, string subject = "Your offers", string? type = "abuse") {
        for (int i = 0; i < number; i++)
            await PostAsync(app, FakeSns.SesComplaint([$"{Guid.NewGuid():N}@mail.example"], "c", type, $"{app.Clock.GetUtcNow():O}")
                .Replace("\"Your offers\"", JsonSerializer.Serialize(subject), StringComparison.Ordinal));
    }

    static async Task BouncedAsync(ReceiverApp app, int number, string type = "Permanent", string subType = "General", string domain = "example.org") {
        for (int i = 0; i < number; i++)
            await PostAsync(app, FakeSns.SesBounce([$"{Guid.NewGuid():N}@{domain}"], "b", type, subType, $"{app.Clock.GetUtcNow():O}"));
    }

    [Fact]
    public async Task A_bad_mailing_is_said_within_a_minute_by_its_subject_and_once_and_once_that_it_is_over() {
        await using var endpoint = await Endpoint.StartAsync();
        string folder;
        await using (var app = await StartAsync(endpoint)) {
            folder = app.Folder;
            await SentAsync(app, "Delivery", 2000);
            await ComplainedAsync(app, 1);
            await CheckedAsync(app);
            Assert.Equal("FeedbackReceiver: 1 complaints to 2,000 deliveries in 24 hours: 0.05 %. SES advises to stay under 0.05 %. "
                + "In the last hour, 1 of 1 answer \"Your offers\", and 1 come from mail.example.", Assert.Single(Said(endpoint)));

            await ComplainedAsync(app, 3, "Winter <!channel> sale\nfor jane.doe@example.com");
            var crossed = app.Clock.GetUtcNow();
            await Eventually.TrueAsync(() => {
                if (app.Clock.GetUtcNow() - crossed < TimeSpan.FromMinutes(1)) app.Clock.Advance(TimeSpan.FromSeconds(1));
                return Said(endpoint).Length == 2;
            });
            Assert.Equal("FeedbackReceiver: 4 complaints to 2,000 deliveries in 24 hours: 0.2 %. SES puts an account under review at 0.1 %. "
                + "In the last hour, 3 of 4 answer \"Winter &lt;!channel&gt; sale for [address]\", and 4 come from mail.example.", Said(endpoint)[1]);
            for (int i = 0; i < 5; i++) await CheckedAsync(app);
            Assert.Equal(2, Said(endpoint).Length);
        }

        await using var again = await StartAsync(endpoint, folder);
        await CheckedAsync(again);
        again.Clock.Advance(TimeSpan.FromDays(2));
        await CheckedAsync(again);
        Assert.Equal(2, Said(endpoint).Length);
        again.Clock.Advance(TimeSpan.FromDays(6));
        await CheckedAsync(again);
        await CheckedAsync(again);
        Assert.Equal("FeedbackReceiver: All clear: complaints.", Assert.Single(Said(endpoint).Skip(2)));
    }

    [Fact]
    public async Task A_small_sample_says_nothing() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await SentAsync(app, "Delivery", 195);
        await SentAsync(app, "Send", 199);
        await ComplainedAsync(app, 10);
        await BouncedAsync(app, 4); // 2 %
        await CheckedAsync(app);
        Assert.Empty(Said(endpoint));

        await SentAsync(app, "Delivery", 5);
        await CheckedAsync(app);
        Assert.Contains("10 complaints to 200 deliveries", Assert.Single(Said(endpoint)), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(7, "")]
    [InlineData(8, "SES advises to stay under 2 %.")]
    [InlineData(20, "SES puts an account under review at 5 %.")]
    [InlineData(40, "SES may pause sending at 10 %.")]
    public async Task A_bounce_rate_is_said_by_the_worst_line_that_it_crosses(int bounces, string says) {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await SentAsync(app, "Send", 400);
        await BouncedAsync(app, bounces);
        await BouncedAsync(app, 40, "Transient");
        await BouncedAsync(app, 40, "Permanent", "OnAccountSuppressionList");
        await BouncedAsync(app, 40, domain: "simulator.amazonses.com");
        await CheckedAsync(app);
        await CheckedAsync(app);
        if (says.Length == 0) Assert.Empty(Said(endpoint));
        else Assert.Equal($"FeedbackReceiver: {bounces} bounces to 400 mails in 24 hours: {bounces / 4.0:0.###} %. {says} In the last hour, {bounces} of "
            + $"{bounces} answer \"Your offers\", and {bounces} come from example.org.", Assert.Single(Said(endpoint)));
    }

    [Fact]
    public async Task A_few_sends_beside_many_more_bounces_hide_nothing() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await SentAsync(app, "Send", 10); // of one configuration set alone
        await BouncedAsync(app, Alerts.BouncesAnHour);
        await CheckedAsync(app);
        Assert.StartsWith("FeedbackReceiver: 50 bounces in one hour. The rate is unknown without", Assert.Single(Said(endpoint)), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Where_sends_are_not_collected_bounces_are_said_by_what_was_delivered() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await SentAsync(app, "Delivery", 380);
        await BouncedAsync(app, 20);
        await CheckedAsync(app);
        Assert.StartsWith("FeedbackReceiver: 20 bounces to 400 mails in 24 hours: 5 %. SES puts", Assert.Single(Said(endpoint)), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_rate_that_trembles_on_a_line_is_said_once() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await SentAsync(app, "Delivery", 1000);
        await ComplainedAsync(app, 1);
        await CheckedAsync(app);
        Assert.Single(Said(endpoint));
        await SentAsync(app, "Delivery", 150); // 0.087 %
        await CheckedAsync(app);
        await ComplainedAsync(app, 1);         // 0.174 %
        await CheckedAsync(app);
        Assert.Single(Said(endpoint));
    }

    [Fact]
    public async Task A_rate_that_fell_well_under_a_line_and_crosses_it_again_is_said_again() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await SentAsync(app, "Delivery", 1000);
        await ComplainedAsync(app, 1);
        await CheckedAsync(app);
        await SentAsync(app, "Delivery", 300); // 0.077 %
        await CheckedAsync(app);
        Assert.Single(Said(endpoint));
        await ComplainedAsync(app, 1);         // 0.154 %
        await CheckedAsync(app);
        Assert.Equal(2, Said(endpoint).Count(said => said.Contains("under review", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task Where_the_rate_is_unknown_so_many_an_hour_are_said() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await ComplainedAsync(app, Alerts.ComplaintsAnHour - 1);
        await ComplainedAsync(app, 5, type: "not-spam");
        await BouncedAsync(app, Alerts.BouncesAnHour - 1);
        await CheckedAsync(app);
        Assert.Empty(Said(endpoint));

        await ComplainedAsync(app, 1);
        await BouncedAsync(app, 1);
        await CheckedAsync(app);
        await CheckedAsync(app);
        Assert.Equal(["FeedbackReceiver: 50 bounces in one hour. The rate is unknown without SEND or DELIVERY events of all mail.",
            "FeedbackReceiver: 5 complaints in one hour. The rate is unknown without DELIVERY events of all mail."],
            Said(endpoint).Select(said => said[..(said.IndexOf("all mail.", StringComparison.Ordinal) + 9)]));

        app.Clock.Advance(TimeSpan.FromHours(3));
        await CheckedAsync(app);
        Assert.Equal(["FeedbackReceiver: All clear: bounces.", "FeedbackReceiver: All clear: complaints."], Said(endpoint).Skip(2).Order());
    }

    [Fact]
    public async Task A_topic_that_unsubscribes_is_said_until_it_is_confirmed_again() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        await CheckedAsync(app);
        Assert.Empty(Said(endpoint));
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation")));
        await CheckedAsync(app);
        await CheckedAsync(app);
        Assert.StartsWith($"FeedbackReceiver: {FakeSns.TopicArn} was unsubscribed on 2026-11-24 08:", Assert.Single(Said(endpoint)), StringComparison.Ordinal);
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        await CheckedAsync(app);
        Assert.Equal($"FeedbackReceiver: All clear: unsubscribed {FakeSns.TopicArn}.", Said(endpoint)[1]);
    }

    [Fact]
    public async Task Silence_is_said_after_so_many_days_and_over_with_the_next_message() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint, settings: "Alerts:SilenceDays=3");
        app.Clock.Advance(TimeSpan.FromDays(4));
        await CheckedAsync(app); // of nothing that ever came
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await app.HistoryAsync("jane@example.com"); // so it is in LiteDB before days pass
        app.Clock.Advance(TimeSpan.FromDays(3) - TimeSpan.FromMinutes(10));
        await CheckedAsync(app);
        Assert.Empty(Said(endpoint));

        app.Clock.Advance(TimeSpan.FromMinutes(10));
        await CheckedAsync(app);
        Assert.StartsWith("FeedbackReceiver: Nothing has come from SNS since 2026-11-28 08:", Assert.Single(Said(endpoint)), StringComparison.Ordinal);
        await app.PostAsync(app.Sns.Bounce("john@example.com"));
        await CheckedAsync(app);
        Assert.Equal("FeedbackReceiver: All clear: silence.", Said(endpoint)[1]);
    }

    [Fact]
    public async Task A_disk_that_fills_up_is_said_and_that_there_is_room_again() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        _disk.Left = 1L << 30;
        await CheckedAsync(app);
        Assert.Empty(Said(endpoint));
        _disk.Left = 500L << 20;
        await CheckedAsync(app);
        Assert.StartsWith("FeedbackReceiver: 500 MiB are left on the journal's disk.", Assert.Single(Said(endpoint)), StringComparison.Ordinal);
        _disk.Left = 1L << 31;
        await CheckedAsync(app);
        Assert.Equal("FeedbackReceiver: All clear: disk.", Said(endpoint)[1]);
    }

    [Fact]
    public async Task A_signing_certificate_that_ends_within_a_week_is_said() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        using var key = System.Security.Cryptography.RSA.Create(2048);
        app.Sns.Pem = FakeSns.PemOf(key, app.Clock.Start.AddYears(-1), new(2026, 12, 1, 9, 0, 0, TimeSpan.Zero));
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await CheckedAsync(app);
        Assert.Empty(Said(endpoint));
        app.Clock.Advance(TimeSpan.FromHours(1.1));
        await CheckedAsync(app);
        Assert.Contains("ends on 2026-12-01 09:00 UTC", Assert.Single(Said(endpoint)), StringComparison.Ordinal);

        await app.StopAsync();
        await using var again = await StartAsync(endpoint, app.Folder);
        for (int i = 0; i < 3; i++) await CheckedAsync(again);
        Assert.Single(Said(endpoint)); // no certificate was needed yet, so none is well
    }

    [Fact]
    public async Task While_history_is_built_anew_nothing_is_silent_and_nothing_is_over() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await SentAsync(app, "Delivery", 200);
        await ComplainedAsync(app, 10);
        await CheckedAsync(app);
        Assert.Single(Said(endpoint));
        await app.StopAsync();
        foreach (string file in Directory.GetFiles(app.Folder, "feedback*")) File.Delete(file);
        Directory.CreateDirectory(app.FeedbackDb + ".open"); // where a file must be before the first write to feedback.db

        await using var again = await StartAsync(endpoint, app.Folder);
        for (int i = 0; i < 3; i++) await CheckedAsync(again);
        Assert.DoesNotContain(Said(endpoint), said => said.Contains("All clear", StringComparison.Ordinal));

        Directory.Delete(app.FeedbackDb + ".open");
        await Eventually.TrueAsync(() => {
            again.Clock.Advance(TimeSpan.FromDays(1));
            return Said(endpoint).Contains("FeedbackReceiver: All clear: complaints.");
        });
    }

    [Fact]
    public async Task A_topic_that_was_unsubscribed_and_comes_by_another_subscription_is_well() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation")));
        await app.PostAsync(app.Sns.Bounce("jane@example.com")); // which SNS may have tried before
        await CheckedAsync(app);
        Assert.Contains("was unsubscribed on 2026-11-24 08:00 UTC", Assert.Single(Said(endpoint)), StringComparison.Ordinal);

        app.Clock.Advance(TimeSpan.FromHours(1.1));
        await app.PostAsync(app.Sns.Bounce("joe@example.com"));
        await CheckedAsync(app);
        Assert.Equal($"FeedbackReceiver: All clear: unsubscribed {FakeSns.TopicArn}.", Said(endpoint)[1]);
    }

    [Fact]
    public async Task What_was_said_before_a_restart_is_not_over_before_everybody_has_looked() {
        await using var endpoint = await Endpoint.StartAsync();
        Finding? found = new("hook-refused", "warning", "Something waits.", "see to it");
        int looks = 0;
        Task<ReceiverApp> StartWithAsync(Func<Finding?> find, string? folder = null) => ReceiverApp.StartAsync(
            ["Alerts:Url=" + endpoint.Url], folder, disk: _disk, with: builder => builder.Services.AddSingleton(find));
        await using var app = await StartWithAsync(() => found);
        await CheckedAsync(app);
        await app.StopAsync();

        await using var again = await StartWithAsync(() => looks++ == 0 ? null : found, app.Folder);
        for (int i = 0; i < 3; i++) await CheckedAsync(again);
        Assert.Single(Said(endpoint));
        Assert.True(looks > 2);
    }

    [Fact]
    public async Task While_the_store_cannot_be_read_nothing_is_over_and_after_ten_minutes_that_is_said() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await ComplainedAsync(app, Alerts.ComplaintsAnHour);
        await CheckedAsync(app);
        Assert.Single(Said(endpoint));
        FileOf(app.Services.GetRequiredService<LiteDbStore>()).Abandon(); // until the follower wakes up
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromMinutes(1));
            return Said(endpoint).Length == 2;
        });
        Assert.StartsWith("FeedbackReceiver: What is stored cannot be read since 2026-11-24 08:", Said(endpoint)[1], StringComparison.Ordinal);
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await app.HistoryAsync("jane@example.com");
        await CheckedAsync(app);
        Assert.Equal("FeedbackReceiver: All clear: store.", Said(endpoint)[2]);
    }

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_file")] static extern ref FeedbackFile FileOf(LiteDbStore store);

    [Fact]
    public async Task What_another_part_finds_is_said_with_what_mends_it() {
        await using var endpoint = await Endpoint.StartAsync();
        Finding? found = new("hook-refused", "warning", "Something waits.", "see to it");
        await using var app = await ReceiverApp.StartAsync(["Alerts:Url=" + endpoint.Url], disk: _disk,
            with: builder => builder.Services.AddSingleton<Func<Finding?>>(() => found));
        await CheckedAsync(app);
        found = null;
        await CheckedAsync(app);
        Assert.Equal(["FeedbackReceiver: Something waits. To mend it: see to it.", "FeedbackReceiver: All clear: hook-refused."], Said(endpoint));
    }

    [Theory]
    [InlineData(500)]
    [InlineData(307)]
    public async Task A_webhook_that_refuses_is_asked_again_ever_later_and_nothing_else_waits(int status) {
        await using var endpoint = await Endpoint.StartAsync();
        await using var elsewhere = await Endpoint.StartAsync();
        endpoint.Answer = context => {
            context.Response.Headers.Location = elsewhere.Url;
            return Endpoint.Status(status)(context);
        };
        await using var app = await StartAsync(endpoint);
        _disk.Left = 0;
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(30));
            return app.Log.Text.Contains($"tried again in 8 min: HTTP {status}", StringComparison.Ordinal);
        });
        Assert.Contains("tried again in 4 min", app.Log.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("secret-hook", app.Log.Text, StringComparison.Ordinal);
        Assert.Empty(elsewhere.Posted);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status);

        endpoint.Answer = _ => Task.CompletedTask;
        await CheckedAsync(app);
        Assert.Single(Said(endpoint));
    }

    [Theory]
    [InlineData("Alerts:Url", "Alerts:Url=hooks.slack.com/services/T0")]
    [InlineData("Alerts:Url", "Alerts:Url=file:///etc/passwd")]
    [InlineData("Alerts:SilenceDays", "Alerts:SilenceDays=-1")]
    [InlineData("Alerts:SilenceDays", "Alerts:SilenceDays=366")]
    public async Task A_wrong_setting_stops_the_start_and_is_named(string name, string setting) =>
        Assert.StartsWith(name, (await Assert.ThrowsAsync<Microsoft.Extensions.Options.OptionsValidationException>(() =>
            ReceiverApp.StartAsync([setting]))).Message, StringComparison.Ordinal);
}
