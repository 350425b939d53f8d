using System.Runtime.CompilerServices;
using System.Text.Json;
using LiteDB;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

public sealed class StoreTests {
    const int Many = 400;

    static readonly Dictionary<string, Action<string>> Damages = new() {
        ["deleted"] = File.Delete,
        ["emptied"] = path => File.WriteAllBytes(path, []),
        ["cut in half"] = path => File.WriteAllBytes(path, File.ReadAllBytes(path)[..(8192 * 20)]),
        ["cut within a page"] = path => File.WriteAllBytes(path, File.ReadAllBytes(path)[..(8192 * 30 + 100)]),
        ["rubbish"] = path => File.WriteAllBytes(path, [.. Enumerable.Repeat((byte)0xA5, 8192 * 12)]),
        ["zeros"] = path => File.WriteAllBytes(path, new byte[1 << 20]),
        ["damaged at page 1"] = path => DamagePage(path, 1),
        ["damaged at page 5"] = path => DamagePage(path, 5),
        ["damaged at page 10"] = path => DamagePage(path, 10),
        ["damaged at page 20"] = path => DamagePage(path, 20),
        ["damaged at page 30"] = path => DamagePage(path, 30),
        ["written by another version"] = path => {
            using var database = new LiteDatabase($"Filename={path};Collation=/Ordinal");
            database.GetCollection("meta").Update(new BsonDocument { ["_id"] = "journal", ["schema"] = 99 });
        },
    };

    static void DamagePage(string path, int page) {
        using var file = File.OpenWrite(path);
        file.Position = page * 8192;
        file.Write([.. Enumerable.Repeat((byte)0xA5, 8192)]);
    }

    /// <summary>A stopped receiver that kept <see cref="Many"/> bounces.</summary>
    static async Task<string> StoppedAsync() {
        string folder = Lines.FolderOfBounces(Many);
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        await AssertCompleteAsync(app);
        await app.StopAsync();
        return folder;
    }

    static async Task AssertCompleteAsync(ReceiverApp app) {
        for (int number = 0; number < Many; number += 7) {
            Assert.Equal(200, await app.StatusAsync($"/suppressed/a{number}@example.com"));
            Assert.Single(await app.HistoryAsync($"a{number}@example.com"));
        }
    }

    static string[] Aside(string folder) => Directory.GetFiles(folder, "feedback*.aside");

    static string[] Args(string folder, params string[] settings) =>
    [
        "--Sns:TopicArns:0=" + FakeSns.TopicArn, $"--Journal:Directory={folder}/journal",
        $"--ConnectionStrings:Feedback=Filename={folder}/feedback.db", .. settings,
    ];

    [Theory]
    [MemberData(nameof(DamageNames))]
    public async Task Whatever_happened_to_feedback_db_it_is_complete_again_after_a_start(string damage) {
        string folder = await StoppedAsync();
        Damages[damage](Path.Combine(folder, "feedback.db"));
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        await AssertCompleteAsync(app);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("new@example.com"))).Status);
        Assert.Single(await app.HistoryAsync("new@example.com"));
    }

    public static TheoryData<string> DamageNames => [.. Damages.Keys];

    [Theory]
    [InlineData("rubbish")]
    [InlineData("written by another version")]
    public async Task A_file_that_cannot_be_trusted_is_moved_aside_and_never_deleted(string damage) {
        string folder = await StoppedAsync();
        Damages[damage](Path.Combine(folder, "feedback.db"));
        byte[] before = File.ReadAllBytes(Path.Combine(folder, "feedback.db"));
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        Assert.Contains(Aside(folder), path => File.ReadAllBytes(path).AsSpan().SequenceEqual(before));
        Assert.Contains("is moved aside", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_log_without_its_file_is_moved_aside() {
        string folder = await StoppedAsync();
        File.Delete(Path.Combine(folder, "feedback.db"));
        byte[] stale = [.. Enumerable.Repeat((byte)0xA5, 8192 * 3)];
        File.WriteAllBytes(Path.Combine(folder, "feedback-log.db"), stale);
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        await AssertCompleteAsync(app);
        Assert.Equal(stale, File.ReadAllBytes(Assert.Single(Aside(folder))));
    }

    [Fact]
    public async Task After_a_power_cut_the_file_is_not_trusted() {
        string folder = await StoppedAsync();
        File.WriteAllText(Path.Combine(folder, "feedback.db.open"), "another boot");
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        await AssertCompleteAsync(app);
        Assert.NotEmpty(Aside(folder));
    }

    [Fact]
    public async Task After_a_kill_the_file_is_kept() {
        string folder = await StoppedAsync();
        File.Copy("/proc/sys/kernel/random/boot_id", Path.Combine(folder, "feedback.db.open"));
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        await AssertCompleteAsync(app);
        Assert.Empty(Aside(folder));
    }

    [Fact]
    public async Task The_mark_of_an_open_file_is_there_until_a_clean_stop() {
        await using var app = await ReceiverApp.StartAsync();
        await Eventually.TrueAsync(() => File.Exists(app.FeedbackDb + ".open")); // the follower's
        await app.StopAsync();
        Assert.False(File.Exists(app.FeedbackDb + ".open"));
    }

    [Fact]
    public async Task A_start_without_the_journal_that_feedback_db_was_built_from_is_refused() {
        string folder = await StoppedAsync();
        Directory.Delete(Path.Combine(folder, "journal"), recursive: true);
        var refusal = await Assert.ThrowsAsync<Refusal>(() => ReceiverApp.StartAsync(folder: folder));
        Assert.Contains("feedback.db knows of more than the journal", refusal.Message, StringComparison.Ordinal);
        Assert.Empty(Aside(folder));
    }

    [Fact]
    public async Task While_the_journal_is_read_no_suppressed_address_is_called_free_and_messages_are_kept() {
        string folder = Lines.FolderOfBounces(20_000);
        var sns = new FakeSns();
        sns.WriteCertificate(folder); // each look at this clock is six seconds on, and a download would have five
        using var reading = new HeldLog("reading the journal");
        await using var app = await ReceiverApp.StartAsync(folder: folder, sns: sns, with: reading.Hold);
        using var released = reading.Reached; // a receiver that is held cannot stop
        await reading.Reached.ReachedAsync();
        Assert.Equal(503, await app.StatusAsync("/suppressed/a19999@example.com"));
        Assert.Equal(503, await app.StatusAsync("/suppressed/free@example.com"));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("new@example.com"))).Status);
        Assert.NotEqual(404, await app.StatusAsync("/suppressed/new@example.com"));
        reading.Reached.LetGo();
        await Eventually.TrueAsync(async () => await app.StatusAsync("/suppressed/free@example.com") == 404);
        foreach (string name in (string[])["a0", "a9999", "a19999", "new"])
            Assert.Equal(200, await app.StatusAsync($"/suppressed/{name}@example.com"));
    }

    [Fact]
    public async Task At_no_moment_of_a_start_is_a_suppressed_address_called_free() {
        string folder = Lines.FolderOfBounces(20_000);
        var asker = new Asker("a19999@example.com");
        await using var app = await ReceiverApp.StartAsync(folder: folder, with: builder =>
            builder.Services.Insert(0, ServiceDescriptor.Singleton<IHostedService>(services => asker.Of(services))));
        await asker.FoundAsync();
        Assert.DoesNotContain("free", asker.Answers);
        Assert.Contains("unknown", asker.Answers);
    }

    [Fact]
    public async Task Soft_bounces_suppress_at_once_when_the_limit_is_reached_though_a_restart_lies_between() {
        string[] limit = ["Suppression:SoftBounceLimit=3"];
        string folder = Lines.FolderOf();
        static string Soft(ReceiverApp app, string mail) =>
            app.Sns.Bounce("jane@example.com", mail, "Transient", "MailboxFull");
        await using (var app = await ReceiverApp.StartAsync(limit, folder)) {
            await app.PostAsync(Soft(app, "0100019a00000001-mail"));
            await app.PostAsync(Soft(app, "0100019a00000002-mail"));
            await app.PostAsync(Soft(app, "0100019a00000002-mail"));
            Assert.Equal(404, await app.StatusAsync("/suppressed/jane@example.com"));
            await app.StopAsync();
        }
        await using (var app = await ReceiverApp.StartAsync(limit, folder)) {
            Assert.Equal(404, await app.StatusAsync("/suppressed/jane@example.com"));
            await app.PostAsync(Soft(app, "0100019a00000003-mail"));
            Assert.Equal(200, await app.StatusAsync("/suppressed/jane@example.com"));
            await app.StopAsync();
        }
        await using var last = await ReceiverApp.StartAsync(limit, folder);
        Assert.Equal(200, await last.StatusAsync("/suppressed/jane@example.com"));
        Assert.Equal(3, (await last.HistoryAsync("jane@example.com")).Length);
    }

    [Fact]
    public async Task A_soft_bounce_of_a_mail_without_an_id_counts_after_a_restart_too() {
        string[] limit = ["Suppression:SoftBounceLimit=2"];
        string folder = Lines.FolderOf();
        var sns = new FakeSns();
        string Soft() => sns.Signed(FakeSns.SesBounce(["jane@example.com"], "none", "Transient", "MailboxFull")
            .Replace("\"messageId\":\"none\",", "", StringComparison.Ordinal));
        await using (var app = await ReceiverApp.StartAsync(limit, folder, sns)) {
            await app.PostAsync(Soft());
            Assert.Equal(JsonValueKind.Undefined, (await app.HistoryAsync("jane@example.com"))[0].Member("mailId").ValueKind);
            await app.StopAsync();
        }
        await using var again = await ReceiverApp.StartAsync(limit, folder, sns);
        await again.PostAsync(Soft());
        Assert.Equal(200, await again.StatusAsync("/suppressed/jane@example.com"));
        Assert.DoesNotContain(Directory.EnumerateFiles(folder), path => path.EndsWith(".aside", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Rebuild_judges_all_history_by_the_settings_of_today() {
        string folder = Lines.FolderOf(Enumerable.Range(0, 3).Select(number =>
            Lines.Bounce("jane@example.com", $"0100019a0000000{number}-mail", "Transient")));
        await using (var app = await ReceiverApp.StartAsync(folder: folder)) {
            Assert.Equal(3, (await app.HistoryAsync("jane@example.com")).Length);
            Assert.Equal(404, await app.StatusAsync("/suppressed/jane@example.com"));
            await app.StopAsync();
        }
        Assert.Equal(0, await Receiver.RunAsync(["rebuild", .. Args(folder, "--Suppression:SoftBounceLimit=3")]));
        Assert.NotEmpty(Aside(folder));
        await using var again = await ReceiverApp.StartAsync(["Suppression:SoftBounceLimit=3"], folder);
        Assert.Equal(200, await again.StatusAsync("/suppressed/jane@example.com"));
        Assert.Equal(3, (await again.HistoryAsync("jane@example.com")).Length);
    }

    [Fact]
    public async Task A_message_that_comes_twice_is_one_event_and_counted_once() {
        await using var app = await ReceiverApp.StartAsync();
        string bounce = app.Sns.Bounce("jane@example.com");
        Assert.Equal(((200, "kept"), (200, "kept")), (await app.PostAsync(bounce), await app.PostAsync(bounce)));
        Assert.Single(await app.HistoryAsync("jane@example.com"));
        await app.StopAsync();
        using var database = new LiteDatabase($"Filename={app.FeedbackDb};Collation=/Ordinal");
        Assert.Equal(1, Assert.Single(database.GetCollection("daily").FindAll())["n"].AsInt64);
        Assert.DoesNotContain("The follower failed", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Rebuild_without_the_key_of_those_who_were_forgotten_is_refused() {
        string alias = Lines.Alias([.. Enumerable.Repeat((byte)7, 32)], "jane@example.com");
        string folder = Lines.FolderOf([Lines.Forget(alias)]);
        Assert.Equal(1, await Receiver.RunAsync(["rebuild", .. Args(folder)]).WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task Rebuild_refuses_while_the_receiver_runs() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        Assert.Equal(1, await Receiver.RunAsync(["rebuild", .. Args(app.Folder)]));
        Assert.Empty(Aside(app.Folder));
        Assert.Single(await app.HistoryAsync("jane@example.com"));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public async Task What_LiteDB_cannot_take_is_set_down_as_unread_wherever_it_stands_in_a_journal_that_is_read_anew(int before) {
        string[] lines = [.. Enumerable.Range(0, 5).Select(number => Lines.Bounce($"a{number}@example.com", $"mail-{number}"))];
        // Its id is no key for LiteDB, which takes 1,023 bytes.
        string poison = lines[0].Replace("00000000-0000-4000-8000-000000000000", new string('é', 900), StringComparison.Ordinal)
            .Replace("eventType", "otherType", StringComparison.Ordinal).Replace("notificationType", "otherType", StringComparison.Ordinal);
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOf([.. lines[..before], poison, .. lines[before..]]));
        await app.CaughtUpAsync();
        for (int number = 0; number < 5; number++) Assert.Single(await app.HistoryAsync($"a{number}@example.com"));
        Assert.Equal(1, (await app.Services.GetRequiredService<IFeedbackStore>().StateAsync()).Unread);
    }

    [Fact]
    public async Task Whom_an_event_that_LiteDB_cannot_take_suppresses_stays_suppressed_after_the_next_start() {
        string poison = Lines.Bounce("jane@example.com").Replace(FakeSns.TopicArn, new string('é', 900), StringComparison.Ordinal); // no key for LiteDB
        string folder = Lines.FolderOf([Lines.Bounce("joe@example.com", "mail-2"), poison, Lines.Bounce("ann@example.com", "mail-3")]);
        for (int start = 0; start < 2; start++) {
            await using var app = await ReceiverApp.StartAsync(folder: folder);
            await app.CaughtUpAsync();
            foreach (string name in (string[])["jane", "joe", "ann"]) Assert.Equal(200, await app.StatusAsync($"/suppressed/{name}@example.com"));
            Assert.Equal(1, (await app.Services.GetRequiredService<IFeedbackStore>().StateAsync()).Unread);
        }
    }

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_waiting")] static extern ref long WaitingOf(LiteDbStore store);

    [Fact]
    public async Task After_quiet_days_the_follower_is_not_behind_by_days() {
        await using var app = await ReceiverApp.StartAsync();
        var store = app.Services.GetRequiredService<LiteDbStore>();
        for (int i = 0; i < 50; i++) {
            await app.PostAsync(app.Sns.Bounce($"{i}@example.com"));
            Assert.Equal(TimeSpan.Zero, (await store.StateAsync()).Behind);
            await app.CaughtUpAsync();
            await Eventually.TrueAsync(() => Volatile.Read(ref WaitingOf(store)) == 0);
            app.Clock.Advance(TimeSpan.FromDays(1));
        }
    }

    [Fact]
    public async Task Whom_the_file_has_as_lifted_is_not_called_free_while_the_journal_is_read() {
        var cancellation = TestContext.Current.CancellationToken;
        await using var first = await ReceiverApp.StartAsync();
        await first.PostAsync(first.Sns.Bounce("jane@example.com"));
        using (await first.Private.DeleteAsync("/suppressed/jane@example.com", cancellation)) { }
        Assert.Single(await first.HistoryAsync("jane@example.com")); // so feedback.db has the lift
        await first.StopAsync();
        File.AppendAllText(Lines.SegmentIn(first.Folder), Lines.Suppress("jane@example.com").Replace("T08:", "T09:", StringComparison.Ordinal) + Lines.Bounce("joe@example.com"));
        using var reading = new HeldLog("reading the journal");
        await using var app = await ReceiverApp.StartAsync(folder: first.Folder, with: reading.Hold);
        using var released = reading.Reached;
        await reading.Reached.ReachedAsync();

        Assert.Equal(503, await app.StatusAsync("/suppressed/jane@example.com"));
        using (var lift = await app.Private.DeleteAsync("/suppressed/jane@example.com", cancellation)) Assert.Equal(503, (int)lift.StatusCode);
        reading.Reached.LetGo();
        await Eventually.TrueAsync(async () => await app.StatusAsync("/suppressed/jane@example.com") == 200);
    }
}
