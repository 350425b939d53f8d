using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;

/// <summary>Hook:Url. The application is told of each change of a suppression, at least once and in order.</summary>
public sealed partial class HookTests(PostgresCluster cluster) {
    const string Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

    static string[] Settings(string url) => ["Hook:Url=" + url, "Hook:Secret=" + Secret];
    static Task<ReceiverApp> StartAsync(Endpoint endpoint, string? folder = null) =>
        ReceiverApp.StartAsync(Settings(endpoint.Url + "/hook"), folder);

    static Task ToldAsync(ReceiverApp app, Endpoint endpoint, int count) => Eventually.TrueAsync(() => {
        app.Clock.Advance(TimeSpan.FromSeconds(1));
        return endpoint.Told.Count >= count;
    });

    static async Task BounceAsync(ReceiverApp app, params string[] names) {
        foreach (string name in names) Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce($"{name}@example.com", "mail-" + name))).Status);
    }

    static string[] Names(Endpoint endpoint) => [.. endpoint.Told.Select(told => told.Address.Split('@')[0])];

    [Fact]
    public async Task A_new_a_changed_and_a_lifted_suppression_are_posted_in_that_order() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);

        await BounceAsync(app, "jane");
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(["jane@example.com"])));
        using (var lifted = await app.Private.DeleteAsync("/suppressed/jane@example.com", TestContext.Current.CancellationToken)) { }

        await ToldAsync(app, endpoint, 3);
        Assert.Equal(
        [
            """{"type":"suppression.added","timestamp":"2026-11-24T08:00:00Z","data":{"address":"jane@example.com","reason":"bounce","before":null,"event":"mail-jane/bounce/Permanent/jane@example.com"}}""",
            """{"type":"suppression.changed","timestamp":"2026-11-24T08:00:00Z","data":{"address":"jane@example.com","reason":"complaint","before":"bounce","event":"0100019a00000000-mail/complaint/abuse/jane@example.com"}}""",
            """{"type":"suppression.lifted","timestamp":"2026-11-24T08:00:00Z","data":{"address":"jane@example.com","reason":null,"before":"complaint","event":null}}""",
        ], endpoint.Told.Select(told => told.Body));
        Assert.All(endpoint.Posted, posted => Assert.Equal("application/json", posted.Headers["content-type"]));
        Assert.DoesNotContain("Warning", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_changes_no_suppression_is_not_posted() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);

        await BounceAsync(app, "jane", "jane");
        await app.PostAsync(app.Sns.Bounce("jane@example.com", "another-mail"));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery("free@example.com")));
        await BounceAsync(app, "last");

        await ToldAsync(app, endpoint, 2);
        Assert.Equal(["jane", "last"], Names(endpoint));
    }

    [Fact]
    public async Task All_recipients_of_one_message_are_told() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);

        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["a@example.com", "b@example.com", "c@example.com"])));

        await ToldAsync(app, endpoint, 3);
        Assert.Equal(["a", "b", "c"], Names(endpoint));
    }

    [Fact]
    public void The_signature_is_that_of_the_standards_own_test() => Assert.Equal("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        Hook.Signature(Convert.FromBase64String("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
            """{"test": 2432232314}"""u8));

    [Fact]
    public async Task What_is_posted_carries_the_time_of_the_attempt_and_a_signature_over_all_of_it() {
        await using var endpoint = await Endpoint.StartAsync();
        endpoint.Answer = Endpoint.Status(500);
        await using var app = await StartAsync(endpoint);
        await BounceAsync(app, "jane");
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return endpoint.Posted.Count >= 2;
        });

        var (first, second) = (endpoint.Posted[0], endpoint.Posted[1]);
        Assert.Equal((first.Id, first.Body), (second.Id, second.Body));
        Assert.NotEqual(first.Headers["webhook-timestamp"], second.Headers["webhook-timestamp"]);
        foreach (var posted in (Posted[])[first, second]) {
            long at = long.Parse(posted.Headers["webhook-timestamp"], CultureInfo.InvariantCulture);
            Assert.InRange(at, app.Clock.Start.ToUnixTimeSeconds(), app.Clock.GetUtcNow().ToUnixTimeSeconds());
            byte[] mac = HMACSHA256.HashData(Convert.FromBase64String(Secret[6..]), Encoding.UTF8.GetBytes($"{posted.Id}.{at}.{posted.Body}"));
            Assert.Equal("v1," + Convert.ToBase64String(mac), posted.Headers["webhook-signature"]);
        }
    }

    [Fact]
    public async Task The_standards_reference_library_accepts_what_is_posted_and_refuses_it_changed() {
        string? folder = Environment.GetEnvironmentVariable("STANDARD_WEBHOOKS");
        Assert.SkipWhen(folder is null, "STANDARD_WEBHOOKS does not name a folder in which npm has installed standardwebhooks");
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        await BounceAsync(app, "jane");
        await ToldAsync(app, endpoint, 1);
        var told = endpoint.Told[0];

        Assert.Equal("accepted", await VerifyAsync(folder, told));
        Assert.Equal("No matching signature found", await VerifyAsync(folder, told with { Body = told.Body.Replace("jane", "john", StringComparison.Ordinal) }));
    }

    // The clock stands still in 2026, and the library refuses what is older than five minutes: so it is told that time.
    static async Task<string> VerifyAsync(string folder, Posted posted) {
        const string script = """
            const { Webhook } = require("standardwebhooks");
            const { secret, headers, body } = JSON.parse(process.argv[1]);
            Date.now = () => headers["webhook-timestamp"] * 1000;
            try { new Webhook(secret).verify(body, headers); console.log("accepted"); } catch (e) { console.log(e.message); }
            """;
        string input = JsonSerializer.Serialize(new { secret = Secret, headers = posted.Headers, body = posted.Body });
        using var node = Process.Start(new ProcessStartInfo("node", ["-e", script, input]) { WorkingDirectory = folder, RedirectStandardOutput = true })!;
        return (await node.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken)).Trim();
    }

    [Fact]
    public async Task An_endpoint_that_takes_nothing_for_ten_minutes_is_a_finding_until_it_does() {
        await using var endpoint = await Endpoint.StartAsync();
        endpoint.Answer = Endpoint.Status(500);
        await using var app = await StartAsync(endpoint);
        var find = app.Services.GetRequiredService<Func<Finding?>>();
        await BounceAsync(app, "jane");
        Assert.Null(find());
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(5));
            return find() is not null;
        });
        Assert.True(app.Clock.GetUtcNow() - app.Clock.Start >= TimeSpan.FromMinutes(10));
        Assert.Equal("Hook:Url has taken nothing since 2026-11-24 08:00 UTC.", find()!.Says);
        endpoint.Answer = _ => Task.CompletedTask;
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(30));
            return find() is null;
        });
        Assert.Single(endpoint.Told);
    }

    [Fact]
    public async Task That_an_endpoint_takes_what_came_long_ago_is_no_fault_of_its() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        var find = app.Services.GetRequiredService<Func<Finding?>>();
        var found = new System.Collections.Concurrent.ConcurrentQueue<Finding?>();
        endpoint.Answer = _ => {
            app.Clock.Advance(TimeSpan.FromMinutes(4));
            found.Enqueue(find());
            return Task.CompletedTask;
        };
        for (int i = 0; i < 6; i++) await app.PostAsync(app.Sns.Bounce($"a{i}@example.com", $"mail-{i}"));
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return found.Count == 6;
        });
        Assert.All(found, Assert.Null);
    }

    [Fact]
    public async Task Status_always_says_how_the_hook_is_doing_and_how_far_behind_it_is() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        async Task<string> ErrandsAsync() => (await app.GetAsync("/status")).Json.GetProperty("errands").GetRawText();
        Assert.Equal("""[{"name":"hook","state":"told","lagSeconds":0}]""", await ErrandsAsync());

        var (arrived, asked) = (new TaskCompletionSource(), new TaskCompletionSource());
        endpoint.Answer = _ => {
            arrived.TrySetResult();
            return asked.Task;
        };
        await BounceAsync(app, "jane");
        app.Clock.Advance(TimeSpan.FromSeconds(2));
        await Eventually.TrueAsync(async () => await ErrandsAsync() == """[{"name":"hook","state":"telling","lagSeconds":2}]""");
        await arrived.Task;
        endpoint.Answer = Endpoint.Status(500);
        asked.SetResult();
        await ToldAsync(app, endpoint, 1);
        await Eventually.TrueAsync(async () => await ErrandsAsync() == """[{"name":"hook","state":"told","lagSeconds":0}]""");

        await BounceAsync(app, "joe");
        var lag = app.Clock.GetUtcNow();
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return await ErrandsAsync() == $$"""[{"name":"hook","state":"failing","lagSeconds":{{(app.Clock.GetUtcNow() - lag).TotalSeconds}}}]""";
        });
        await BounceAsync(app, "last");
        var last = new TaskCompletionSource();
        endpoint.Answer = _ => endpoint.Told.Count < 2 ? Task.CompletedTask : last.Task;
        await Eventually.TrueAsync(async () => {
            if (endpoint.Told.Count < 2) app.Clock.Advance(TimeSpan.FromSeconds(1));
            return (await ErrandsAsync()).Contains("telling", StringComparison.Ordinal);
        });
        last.SetResult();
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return await ErrandsAsync() == """[{"name":"hook","state":"told","lagSeconds":0}]""";
        });
    }

    [Theory]
    [InlineData(500)]
    [InlineData(404)]
    [InlineData(302)]
    public async Task An_endpoint_that_refuses_gets_everything_in_order_once_it_does_not(int status) {
        await using var endpoint = await Endpoint.StartAsync();
        await using var elsewhere = await Endpoint.StartAsync();
        endpoint.Answer = context => {
            context.Response.Headers.Location = elsewhere.Url;
            context.Response.Headers.SetCookie = "session=1";
            return Endpoint.Status(status)(context);
        };
        await using var app = await StartAsync(endpoint);
        await BounceAsync(app, "a", "b", "c");
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return endpoint.Posted.Count >= 2;
        });
        Assert.All(endpoint.Posted, posted => Assert.Equal("a@example.com", posted.Address));
        Assert.Contains($"The hook is tried again in ", app.Log.Text, StringComparison.Ordinal);
        Assert.Contains($"HTTP {status}", app.Log.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("@example.com", app.Log.Text, StringComparison.Ordinal);
        Assert.DoesNotContain(endpoint.Url, app.Log.Text, StringComparison.Ordinal);

        endpoint.Answer = _ => Task.CompletedTask;
        await ToldAsync(app, endpoint, 3);
        Assert.Equal(["a", "b", "c"], Names(endpoint));
        Assert.Empty(elsewhere.Posted);
        Assert.DoesNotContain(endpoint.Posted, posted => posted.Headers.ContainsKey("cookie"));
    }

    [Fact]
    public async Task An_endpoint_that_does_not_answer_within_ten_seconds_is_asked_again() {
        await using var endpoint = await Endpoint.StartAsync();
        endpoint.Answer = async context => {
            await Task.Delay(Timeout.Infinite, context.RequestAborted).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            context.Response.StatusCode = 504;
        };
        await using var app = await StartAsync(endpoint);
        await BounceAsync(app, "jane");
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return app.Log.Text.Contains("no answer within 10 s", StringComparison.Ordinal);
        });
        endpoint.Answer = _ => Task.CompletedTask;
        await ToldAsync(app, endpoint, 1);
    }

    [Fact]
    public async Task An_answer_is_told_by_its_status_however_long_it_goes_on() {
        await using var endpoint = await Endpoint.StartAsync();
        endpoint.Answer = async context => {
            byte[] rubbish = new byte[1 << 20];
            try {
                while (true) await context.Response.Body.WriteAsync(rubbish, context.RequestAborted);
            } catch (OperationCanceledException) { }
        };
        await using var app = await StartAsync(endpoint);
        await BounceAsync(app, "a", "b");
        await ToldAsync(app, endpoint, 2);
        Assert.DoesNotContain("tried again", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_pause_doubles_from_a_second_to_an_hour_and_is_never_quite_the_same() {
        await using var app = await ReceiverApp.StartAsync(Settings($"http://127.0.0.1:{Moto.FreePort()}"));
        await BounceAsync(app, "jane");
        double[] pauses = [];
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromHours(1));
            pauses = [.. Pause().Matches(app.Log.Text).Select(match => double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture))];
            return pauses.Length >= 15;
        });
        for (int i = 0; i < pauses.Length; i++) Assert.InRange(pauses[i], Math.Min(1 << i, 3600) / 2.0, Math.Min(1 << i, 3600));
        Assert.Contains(pauses, pause => pause != Math.Floor(pause));
    }

    [Fact]
    public async Task While_the_store_cannot_be_read_the_pause_stays_short() {
        string database = await cluster.NewDatabaseAsync();
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database, .. Settings(endpoint.Url)]);
        await PostgresCluster.ExecuteAsync(database, "alter table changes rename to away");
        double[] pauses = [];
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(10));
            pauses = [.. Pause().Matches(app.Log.Text).Select(match => double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture))];
            return pauses.Length >= 6;
        });
        Assert.All(pauses, pause => Assert.InRange(pause, 5, 10));
        await PostgresCluster.ExecuteAsync(database, "alter table away rename to changes");
        await BounceAsync(app, "jane");
        await ToldAsync(app, endpoint, 1);
    }

    [Fact]
    public async Task The_same_change_at_another_time_has_another_id() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint);
        for (int i = 0; i < 2; i++) {
            using (var put = await app.Private.PutAsync("/suppressed/jane@example.com", null, TestContext.Current.CancellationToken)) { }
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            using (var lifted = await app.Private.DeleteAsync("/suppressed/jane@example.com", TestContext.Current.CancellationToken)) { }
            app.Clock.Advance(TimeSpan.FromSeconds(1));
        }
        await ToldAsync(app, endpoint, 4);
        Assert.Equal(["added", "lifted", "added", "lifted"], endpoint.Told.Select(told => told.Type.Split('.')[1]));
    }

    [Fact]
    public async Task Where_an_older_journal_was_put_back_what_changes_from_then_on_is_told() {
        string folder = Lines.FolderOfBounces(3);
        File.WriteAllText(Path.Combine(folder, "journal", "hook.position"), $"{long.MaxValue:D20}\n");
        await OnlyWhatIsNewIsToldAsync(folder);
    }

    static async Task OnlyWhatIsNewIsToldAsync(string folder) {
        await using var endpoint = await Endpoint.StartAsync();
        await using var app = await StartAsync(endpoint, folder);
        await BounceAsync(app, "new");
        await ToldAsync(app, endpoint, 1);
        Assert.Equal(["new"], Names(endpoint));
    }

    [Fact]
    public async Task After_a_success_the_first_pause_is_a_second_again() {
        await using var endpoint = await Endpoint.StartAsync();
        endpoint.Answer = Endpoint.Status(500);
        await using var app = await StartAsync(endpoint);
        double[] Pauses() => [.. Pause().Matches(app.Log.Text).Select(match => double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture))];
        await BounceAsync(app, "a");
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return Pauses().Length == 4;
        });
        endpoint.Answer = _ => Task.CompletedTask;
        await ToldAsync(app, endpoint, 1);
        endpoint.Answer = Endpoint.Status(500);
        int failed = Pauses().Length;
        await BounceAsync(app, "b");
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return Pauses().Length > failed;
        });
        Assert.InRange(Pauses()[failed], 0.5, 1);
    }

    [Fact]
    public async Task A_receiver_that_stops_tells_the_rest_after_the_next_start() {
        await using var endpoint = await Endpoint.StartAsync();
        endpoint.Answer = context => Endpoint.Status(endpoint.Told.Count < 2 ? 200 : 500)(context);
        string folder;
        await using (var app = await StartAsync(endpoint)) {
            folder = app.Folder;
            await BounceAsync(app, "a", "b", "c", "d");
            await ToldAsync(app, endpoint, 2);
            await Eventually.TrueAsync(() => endpoint.Posted.Any(posted => posted.Status == 500)); // so the answer to b has come
        }
        endpoint.Answer = _ => Task.CompletedTask;
        await using var again = await StartAsync(endpoint, folder);
        await ToldAsync(again, endpoint, 4);
        Assert.Equal(["a", "b", "c", "d"], Names(endpoint));
        Assert.Equal(2, endpoint.Posted.Count(posted => posted.Address[0] is 'a' or 'b'));
    }

    [Fact]
    public async Task A_receiver_from_which_another_took_over_while_it_waited_tells_no_more_of_what_it_had_read() {
        await using var endpoint = await Endpoint.StartAsync();
        var (arrived, slow) = (new TaskCompletionSource(), new TaskCompletionSource());
        endpoint.Answer = _ => {
            endpoint.Answer = _ => Task.CompletedTask;
            arrived.SetResult();
            return slow.Task;
        };
        string[] settings = ["ConnectionStrings:Feedback=" + await cluster.NewDatabaseAsync(), .. Settings(endpoint.Url)];
        await using var one = await ReceiverApp.StartAsync([settings[0] + ";Application Name=one", .. settings[1..]]);
        var (store, at) = (one.Services.GetRequiredService<PostgresStore>(), one.Clock.GetUtcNow());
        Entry[] entries = [new(at, Suppress: new("joe@example.com", Reason.Manual)), new(at, Suppress: new("jane@example.com", Reason.Manual)),
            new(at, Lift: new("jane@example.com"))];
        Assert.Equal(Commit.Kept, await store.KeepAsync(Array.ConvertAll(entries, store.Prepare))); // so it reads them together
        await Eventually.TrueAsync(() => {
            one.Clock.Advance(TimeSpan.FromSeconds(1));
            return arrived.Task.IsCompleted;
        });
        await PostgresCluster.ExecuteAsync(settings[0].Split('=', 2)[1], """
            select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'one' and datname = current_database()
            """);
        await using var two = await ReceiverApp.StartAsync(settings);
        await ToldAsync(two, endpoint, 3);
        await two.PostAsync(two.Sns.Signed(FakeSns.SesComplaint(["jane@example.com"], at: "2026-11-24T08:30:00Z")));
        await ToldAsync(two, endpoint, 4);

        one.Clock.Advance(TimeSpan.FromSeconds(2));
        slow.SetResult();

        await Eventually.TrueAsync(() => one.Log.Text.Contains("The hook is tried again", StringComparison.Ordinal));
        Assert.Equal(["joe added", "jane added", "jane lifted", "jane added", "joe added"],
            endpoint.Posted.Select(posted => $"{posted.Address.Split('@')[0]} {posted.Type.Split('.')[1]}"));
    }

    [Theory]
    [InlineData("deleted")]
    [InlineData("rubbish")]
    [InlineData("rebuilt")]
    public async Task A_feedback_db_that_is_built_anew_has_nothing_told_again_and_nothing_lost(string how) {
        await using var endpoint = await Endpoint.StartAsync();
        string folder;
        await using (var app = await StartAsync(endpoint)) {
            folder = app.Folder;
            await BounceAsync(app, "told");
            await ToldAsync(app, endpoint, 1);
            await Eventually.TrueAsync(() => FileOf(app.Services.GetRequiredService<LiteDbStore>()).Outbox!.Told == app.Services.GetRequiredService<Journal>().End);
            endpoint.Answer = Endpoint.Status(500);
            await BounceAsync(app, "untold");
            using (var lifted = await app.Private.DeleteAsync("/suppressed/untold@example.com", TestContext.Current.CancellationToken)) { }
            await app.HistoryAsync("untold@example.com");
        }
        string file = Path.Combine(folder, "feedback.db");
        if (how == "deleted") File.Delete(file);
        if (how == "rubbish") File.WriteAllBytes(file, [.. Enumerable.Repeat((byte)0xA5, 8192 * 12)]);
        if (how == "rebuilt") Assert.Equal(0, await Receiver.RunAsync(["rebuild", "--Sns:TopicArns:0=" + FakeSns.TopicArn,
            $"--Journal:Directory={folder}/journal", $"--ConnectionStrings:Feedback=Filename={file}", "--Hook:Url=http://127.0.0.1:1", "--Hook:Secret=" + Secret]));

        endpoint.Answer = _ => Task.CompletedTask;
        await using var again = await StartAsync(endpoint, folder);
        await BounceAsync(again, "after");
        await ToldAsync(again, endpoint, 4);
        Assert.Equal(["told", "untold", "untold", "after"], Names(endpoint));
        Assert.Equal(["added", "added", "lifted", "added"], endpoint.Told.Select(told => told.Type.Split('.')[1]));
        Assert.Single(endpoint.Posted, posted => posted.Address == "told@example.com");
    }

    [Fact]
    public async Task A_feedback_db_that_is_lost_while_the_receiver_runs_takes_no_change_with_it() {
        await using var endpoint = await Endpoint.StartAsync();
        endpoint.Answer = Endpoint.Status(500);
        string folder;
        await using (var app = await StartAsync(endpoint)) {
            folder = app.Folder;
            await BounceAsync(app, "a", "b");
            await app.HistoryAsync("b@example.com");
            var file = FileOf(app.Services.GetRequiredService<LiteDbStore>()); // what the store does when LiteDB fails
            file.Abandon();
            file.MoveAside("lost");
            await BounceAsync(app, "c");
            await Eventually.TrueAsync(async () => (await app.GetAsync("/history/c@example.com")).Status == 200);
        }
        endpoint.Answer = _ => Task.CompletedTask;
        await using var again = await StartAsync(endpoint, folder);
        await ToldAsync(again, endpoint, 3);
        Assert.Equal(["a", "b", "c"], Names(endpoint));
    }

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_file")] static extern ref FeedbackFile FileOf(LiteDbStore store);

    [Fact]
    public Task What_happened_before_the_hook_was_turned_on_is_not_told() => OnlyWhatIsNewIsToldAsync(Lines.FolderOfBounces(20));

    [Fact]
    public async Task What_happens_to_a_forgotten_person_is_not_told() {
        await using var endpoint = await Endpoint.StartAsync();
        endpoint.Answer = Endpoint.Status(500);
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        byte[] key = RandomNumberGenerator.GetBytes(32);
        Directory.CreateDirectory(Path.Combine(folder, "journal"));
        File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), key);
        string alias = Lines.Alias(key, "jane@example.com");
        await using var app = await StartAsync(endpoint, folder);
        await BounceAsync(app, "jane");
        Task IsAsync(string state) => Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(1));
            return (await app.GetAsync("/status")).Json.GetProperty("errands")[0].Text("state") == state;
        });
        await IsAsync("failing");
        var store = app.Services.GetRequiredService<IFeedbackStore>();
        await store.CommitAsync(new Entry(app.Clock.GetUtcNow(), Forget: new(alias, new Known(Reason.Bounce, app.Clock.GetUtcNow()))));
        await IsAsync("told");
        using (var lifted = await app.Private.DeleteAsync("/suppressed/jane@example.com", TestContext.Current.CancellationToken)) Assert.True(lifted.IsSuccessStatusCode);
        endpoint.Answer = _ => Task.CompletedTask;
        await BounceAsync(app, "other");
        await ToldAsync(app, endpoint, 1);
        Assert.Equal(["other"], Names(endpoint));
    }

    [Fact]
    public async Task While_the_journal_is_read_nothing_is_told_lest_a_person_is_forgotten_further_on() {
        byte[] key = RandomNumberGenerator.GetBytes(32);
        string alias = Lines.Alias(key, "jane@example.com");
        string folder = Lines.FolderOf(Lines.Bounce("jane@example.com"), Encoding.UTF8.GetString(
            new Entry(DateTimeOffset.UnixEpoch, Forget: new(alias, new Known(Reason.Bounce))).ToLine()), Lines.Bounce("other@example.com"));
        File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), key);
        File.WriteAllText(Path.Combine(folder, "journal", "hook.position"), $"{0:D20}\n");
        var clock = new FollowersClock();
        Change[] Untold() => FileOf(clock.Store).Outbox!.First(10);
        var hold = clock.HoldWhen(store => FileOf(store).Outbox!.First(1).Length > 0); // after the first line
        await using var app = await ReceiverApp.StartAsync(Settings("http://127.0.0.1:1"), folder, with: builder =>
            builder.Services.AddSingleton<TimeProvider>(clock).AddSingleton(services => clock.Store = new LiteDbStore(services.GetRequiredService<Journal>(),
                services.GetRequiredService<Microsoft.Extensions.Options.IOptions<ReceiverOptions>>(), clock, services.GetRequiredService<Log>()).KeepingChanges()));
        using var released = clock;
        await hold.ReachedAsync();
        Assert.Equal(["jane@example.com"], Untold().Select(change => change.Address));
        Assert.Empty(await clock.Store.ChangesAsync(10));
        clock.Dispose();
        await Eventually.TrueAsync(async () => (await clock.Store.ChangesAsync(10)).Count > 0);
        Assert.Equal(["other@example.com"], (await clock.Store.ChangesAsync(10)).Select(change => change.Address));
    }

    [Fact]
    public async Task Kill_9_loses_no_change_and_keeps_the_order_of_each_address() {
        const int addresses = 60;
        int port = Moto.FreePort();
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        var sns = new FakeSns();
        sns.WriteCertificate(folder);
        File.WriteAllText(Path.Combine(folder, "appsettings.json"), $$$"""{"Hook":{"Url":"http://127.0.0.1:{{{port}}}","Secret":"{{{Secret}}}"} }""");
        using (var down = await OwnProcess.StartAsync(folder)) {
            for (int i = 0; i < addresses; i++) Assert.True(await down.PostAsync(sns.Bounce($"a{i}@example.com", "b")));
            await down.KillAsync();
        }
        await using var endpoint = await Endpoint.StartAsync(port);
        for (int round = 0; round < 3; round++) {
            using var receiver = await OwnProcess.StartAsync(folder);
            int from = endpoint.Posted.Count;
            var killed = new TaskCompletionSource();
            endpoint.Answer = async _ => { // in the middle of an answer
                if (endpoint.Posted.Count < from + 10) return;
                await receiver.KillAsync();
                killed.TrySetResult();
            };
            for (int i = round; i < addresses; i += 3) await receiver.PostAsync(sns.Signed(FakeSns.SesComplaint([$"a{i}@example.com"], "c")));
            await killed.Task.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken);
        }
        endpoint.Answer = _ => Task.CompletedTask;
        using var last = await OwnProcess.StartAsync(folder);
        for (int i = 0; i < addresses; i++) Assert.True(await last.PostAsync(sns.Signed(FakeSns.SesComplaint([$"a{i}@example.com"], "c"))));
        await Eventually.TrueAsync(() => endpoint.Told.Count >= 2 * addresses);
        for (int i = 0; i < addresses; i++)
            Assert.Equal(["suppression.added", "suppression.changed"], endpoint.Told.Where(told => told.Address == $"a{i}@example.com").Select(told => told.Type));
        Assert.Equal(2 * addresses, endpoint.Told.Count);
    }

    [Theory]
    [InlineData("Hook:Url", "app.example.com/hook", Secret)]
    [InlineData("Hook:Url", "ftp://app.example.com/hook", Secret)]
    [InlineData("Hook:Url", "/hook", Secret)]
    [InlineData("Hook:Url", "https://user:password@app.example.com/hook", Secret)]
    [InlineData("Hook:Secret", "https://app.example.com/hook", "")]
    [InlineData("Hook:Secret", "https://app.example.com/hook", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    [InlineData("Hook:Secret", "https://app.example.com/hook", "whsec_not base64 at all, though it is long")]
    [InlineData("Hook:Secret", "https://app.example.com/hook", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")] // 23 bytes
    public async Task A_wrong_setting_stops_the_start_and_is_named(string name, string url, string secret) =>
        Assert.StartsWith(name, (await Assert.ThrowsAsync<Microsoft.Extensions.Options.OptionsValidationException>(() =>
            ReceiverApp.StartAsync(["Hook:Url=" + url, "Hook:Secret=" + secret]))).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData(23, false)]
    [InlineData(24, true)]
    [InlineData(64, true)]
    [InlineData(65, false)]
    public void A_secret_has_24_to_64_bytes(int bytes, bool good) =>
        Assert.Equal(good, new HookOptions { Secret = "whsec_" + Convert.ToBase64String(new byte[bytes]) }.Key is { } key && key.Length == bytes);

    [GeneratedRegex(@"tried again in ([0-9.]+) s")] private static partial Regex Pause();
}
