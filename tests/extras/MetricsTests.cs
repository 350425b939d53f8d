using System.Globalization;
using System.Net;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

/// <summary>GET /metrics, as Prometheus reads it.</summary>
public sealed partial class MetricsTests {
    /// <summary>One line of the answer.</summary>
    sealed record Sample(string Name, IReadOnlyDictionary<string, string> Labels, double Value);

    /// <summary>The answer: each metric's type, and all samples. What is not in the format fails.</summary>
    static (Dictionary<string, string> Types, List<Sample> Samples) Parse(string text) {
        var (types, samples) = (new Dictionary<string, string>(), new List<Sample>());
        foreach (string line in text.Split('\n').Where(line => line.Length > 0 && line != "# EOF")) {
            if (TypeLine().Match(line) is { Success: true } type) types.Add(type.Groups[1].Value, type.Groups[2].Value);
            else if (!CommentLine().IsMatch(line)) {
                var sample = SampleLine().Match(line);
                Assert.True(sample.Success, line);
                samples.Add(new(sample.Groups[1].Value, Label().Matches(sample.Groups[2].Value).ToDictionary(label => label.Groups[1].Value,
                    label => label.Groups[2].Value), double.Parse(sample.Groups[3].Value, CultureInfo.InvariantCulture)));
            }
        }
        Assert.Equal(samples.Count, samples.DistinctBy(sample => sample.Name + string.Join(',', sample.Labels.Select(label => label.Key + label.Value).Order())).Count());
        Assert.All(samples, sample => Assert.Contains(types.Keys, name => sample.Name == name || (types[name] == "histogram"
            && sample.Name.StartsWith(name + "_", StringComparison.Ordinal))));
        return (types, samples);
    }

    static async Task<List<Sample>> SamplesAsync(ReceiverApp app) =>
        Parse(await app.Private.GetStringAsync("/metrics", TestContext.Current.CancellationToken)).Samples;

    /// <summary>The value once it is there: the store is asked every half minute, and an answer is kept for a third of a second.</summary>
    static async Task BecomesAsync(ReceiverApp app, double value, string name, params string[] labels) {
        List<Sample> found = [];
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(10));
            found = [.. (await SamplesAsync(app)).Where(sample => sample.Name == name && labels.All(label => sample.Labels.Contains(Pair(label))))];
            return found is [{ } only] && Math.Abs(only.Value - value) < 1e-9;
        });
    }

    static KeyValuePair<string, string> Pair(string label) => label.Split('=') is [var name, var value] ? new(name, value) : default;

    static string Delivery(int recipients, string kind = "Delivery") {
        string list = JsonSerializer.Serialize(Enumerable.Range(0, recipients).Select(i => $"{kind}{i}@example.com"));
        return $$$"""
            {"eventType":"{{{kind}}}","delivery":{"timestamp":"2026-11-24T07:30:00Z","recipients":{{{list}}}},"mail":{"timestamp":"2026-11-24T07:30:00Z","messageId":"m-{{{kind}}}","destination":{{{list}}}} }
            """;
    }

    [Fact]
    public async Task Messages_are_counted_by_type_verdict_and_status() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("a@example.com"));
        await app.PostAsync(app.Sns.Bounce("b@example.com"));
        await app.PostAsync(app.Sns.Signed("no SES event"));
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()));
        var forged = app.Sns.Notification(FakeSns.SesBounce(["c@example.com"]));
        app.Sns.Sign(forged);
        forged["Message"] = "changed";
        await app.PostAsync(forged.ToJsonString());
        await app.PostAsync("no envelope");

        const string name = "feedback_receiver_messages_total";
        await BecomesAsync(app, 2, name, "type=Notification", "verdict=kept", "status=200");
        await BecomesAsync(app, 1, name, "type=Notification", "verdict=unread", "status=200");
        await BecomesAsync(app, 1, name, "type=SubscriptionConfirmation", "verdict=confirmed", "status=200");
        await BecomesAsync(app, 1, name, "type=Notification", "verdict=bad_signature", "status=403");
        await BecomesAsync(app, 1, name, "type=none", "verdict=malformed", "status=400");
    }

    [Fact]
    public void Every_verdict_has_a_name_of_its_own() {
        Verdict[] verdicts = [.. typeof(Verdict).GetFields(BindingFlags.Public | BindingFlags.Static).Select(field => (Verdict)field.GetValue(null)!)];
        Assert.Equal(verdicts.Select(verdict => verdict.Why).Order(), ReceiverMetrics.Names.Keys.Select(verdict => verdict.Why).Order());
        Assert.Equal(verdicts.Length, ReceiverMetrics.Names.Values.Distinct().Count());
    }

    [Fact]
    public async Task Each_event_is_counted_once_by_kind_and_type_and_each_flush_with_what_it_kept() {
        await using var app = await ReceiverApp.StartAsync();
        string bounce = app.Sns.Bounce("a@example.com");
        await app.PostAsync(bounce);
        await app.PostAsync(bounce);
        await app.PostAsync(app.Sns.Bounce("bounce@simulator.amazonses.com"));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(["b@example.com"], type: null)));
        await app.PostAsync(app.Sns.Signed("no SES event"));

        await BecomesAsync(app, 1, "feedback_receiver_feedback_total", "kind=Bounce", "type=Permanent");
        await BecomesAsync(app, 1, "feedback_receiver_feedback_total", "kind=Complaint", "type=");
        await BecomesAsync(app, 3, "feedback_receiver_suppressions");
        await BecomesAsync(app, 1, "feedback_receiver_unread");
        await BecomesAsync(app, 5, "feedback_receiver_journal_flush_entries_count");
        await BecomesAsync(app, 5, "feedback_receiver_journal_flush_entries_sum");
        await BecomesAsync(app, 5, "feedback_receiver_journal_flush_duration_seconds_count");
        await BecomesAsync(app, 0, "feedback_receiver_follower_lag_seconds");
        await BecomesAsync(app, 0, "feedback_receiver_follower_behind_bytes");
        await BecomesAsync(app, 0, "feedback_receiver_follower_waiting");
        await BecomesAsync(app, new FileInfo(Journal.PathOf(app.JournalFolder, 1)).Length, "feedback_receiver_journal_size_bytes");
        await BecomesAsync(app, new DateTimeOffset(2040, 1, 1, 0, 0, 1, TimeSpan.Zero).ToUnixTimeSeconds(), "feedback_receiver_certificate_expiry_timestamp_seconds");
        await BecomesAsync(app, app.Clock.Start.ToUnixTimeSeconds(), "feedback_receiver_topic_last_message_timestamp_seconds", "topic=" + FakeSns.TopicArn);
    }

    [Fact]
    public async Task A_counter_does_not_fall_when_a_person_is_forgotten() {
        const string Counter = "feedback_receiver_feedback_total";
        await using var app = await ReceiverApp.StartAsync();
        foreach (string name in (string[])["a", "b", "c"]) await app.PostAsync(app.Sns.Bounce(name + "@example.com"));
        await BecomesAsync(app, 3, Counter, "kind=Bounce");
        Assert.Equal(204, (int)(await app.Private.DeleteAsync("/history/a@example.com", TestContext.Current.CancellationToken)).StatusCode);
        Assert.Single(await app.HistoryAsync("b@example.com"));
        await app.Private.PutAsync("/suppressed/seen@example.com", null, TestContext.Current.CancellationToken);
        await BecomesAsync(app, 4, "feedback_receiver_suppressions"); // so the store was looked at since
        await BecomesAsync(app, 3, Counter, "kind=Bounce");
        await app.PostAsync(app.Sns.Bounce("d@example.com"));
        await BecomesAsync(app, 4, Counter, "kind=Bounce");
    }

    [Fact]
    public async Task Rates_are_there_once_they_are_known() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("a@example.com"));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(["b@example.com"])));
        await BecomesAsync(app, 2, "feedback_receiver_suppressions");
        Assert.DoesNotContain(await SamplesAsync(app), sample => sample.Name.EndsWith("_ratio", StringComparison.Ordinal));

        await app.PostAsync(app.Sns.Signed(Delivery(100, "Send")));
        await app.PostAsync(app.Sns.Signed(Delivery(50)));
        foreach (string window in (string[])["window=24h", "window=7d"]) {
            await BecomesAsync(app, 0.01, "feedback_receiver_bounce_ratio", window);
            await BecomesAsync(app, 0.02, "feedback_receiver_complaint_ratio", window);
        }
        app.Clock.Advance(TimeSpan.FromHours(25));
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(10));
            return !(await SamplesAsync(app)).Exists(sample => sample.Labels.GetValueOrDefault("window") == "24h");
        });
        await BecomesAsync(app, 0.02, "feedback_receiver_complaint_ratio", "window=7d");
    }

    [Fact]
    public async Task What_only_the_store_knows_is_not_there_while_it_cannot_be_read() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("a@example.com"));
        await BecomesAsync(app, 1, "feedback_receiver_suppressions");
        await BecomesAsync(app, 0, "feedback_receiver_follower_waiting");
        await app.Services.GetRequiredService<LiteDbStore>().StopAsync(TestContext.Current.CancellationToken);
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(10));
            return !(await SamplesAsync(app)).Exists(sample => sample.Name is "feedback_receiver_suppressions" or "feedback_receiver_follower_waiting");
        });
        await BecomesAsync(app, 1, "feedback_receiver_messages_total");
    }

    [Fact]
    public async Task How_many_entries_wait_is_not_there_while_nobody_knows() {
        var clock = new FollowersClock();
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOfBounces(300), with: builder => builder.Services
            .AddSingleton<TimeProvider>(clock).AddSingleton(services => clock.Store = new(services.GetRequiredService<Journal>(),
                services.GetRequiredService<Microsoft.Extensions.Options.IOptions<ReceiverOptions>>(), clock, services.GetRequiredService<Log>())));
        await Eventually.TrueAsync(async () => (await clock.Store.StateAsync()).BehindEntries == 0);
        using var released = clock;
        await Eventually.TrueAsync(async () => await WaitingAsync() is [0]);
        var hold = clock.HoldWhen(store => FileOf(store).Applied == 0);
        FileOf(clock.Store).Abandon(); // what the store does when LiteDB fails
        FileOf(clock.Store).MoveAside("lost");
        await app.PostAsync(app.Sns.Bounce("new@example.com")); // wakes the follower
        await hold.ReachedAsync();
        await Eventually.TrueAsync(async () => await WaitingAsync() is []);
        await Eventually.TrueAsync(async () => {
            clock.Advance(TimeSpan.FromSeconds(10));
            return (await SamplesAsync(app)).Exists(sample => sample is { Name: "feedback_receiver_suppressions", Value: 301 });
        });
        Assert.Empty(await WaitingAsync());

        async Task<double[]> WaitingAsync() {
            clock.Advance(TimeSpan.FromSeconds(10));
            return [.. (await SamplesAsync(app)).Where(sample => sample.Name == "feedback_receiver_follower_waiting").Select(sample => sample.Value)];
        }
    }

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_file")] static extern ref FeedbackFile FileOf(LiteDbStore store);

    [Fact]
    public async Task Another_receiver_in_the_same_process_counts_for_itself() {
        await using var app = await ReceiverApp.StartAsync();
        await using var other = await ReceiverApp.StartAsync();
        for (int i = 0; i < 3; i++) await other.PostAsync(other.Sns.Bounce($"a{i}@example.com"));
        await app.PostAsync(app.Sns.Bounce("a@example.com"));
        await BecomesAsync(app, 1, "feedback_receiver_messages_total");
        await BecomesAsync(other, 3, "feedback_receiver_messages_total");
    }

    [Fact]
    public async Task Strangers_see_no_metrics() {
        await using var app = await ReceiverApp.StartAsync();
        using var response = await app.Webhook.GetAsync("/metrics", TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.NotFound, response.StatusCode);
    }

    [Fact]
    public async Task The_README_lists_every_metric_by_its_type_and_no_other() {
        await using var endpoint = await Endpoint.StartAsync();
        await using var queue = await Endpoint.StartAsync();
        queue.Answer = CountedAsync("7");
        await using var app = await ReceiverApp.StartAsync([.. Sqs(queue), "Alerts:Url=" + endpoint.Url, "Hook:Url=" + endpoint.Url,
            "Hook:Secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="]);
        await app.PostAsync(app.Sns.Signed(Delivery(40, "Send")));
        await app.PostAsync(app.Sns.Signed(Delivery(50)));
        await app.PostAsync(app.Sns.Bounce("a@example.com"));
        await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation")));
        Dictionary<string, string> types = [];
        string[] listed = [.. MetricRow().Matches(File.ReadAllText(Path.Combine(Root, "README.md"))).Select(row => row.Groups[1].Value + " " + row.Groups[2].Value)];
        await Eventually.TrueAsync(async () => {
            app.Clock.Advance(TimeSpan.FromSeconds(10));
            types = Parse(await app.Private.GetStringAsync("/metrics", TestContext.Current.CancellationToken)).Types;
            return types.Count >= listed.Length;
        });
        Assert.Equal(listed.Order(), types.Select(type => type.Key + " " + type.Value).Order());
    }

    // Where the SDK looks first.
    static MetricsTests() {
        Environment.SetEnvironmentVariable("AWS_ACCESS_KEY_ID", "test");
        Environment.SetEnvironmentVariable("AWS_SECRET_ACCESS_KEY", "test");
    }

    static string[] Sqs(Endpoint queue) => ["Sqs:QueueUrl=" + queue.Url + "/123456789012/feedback", "Sqs:ServiceUrl=" + queue.Url];

    /// <summary>An SQS that says how many messages wait, and gives none.</summary>
    static Func<HttpContext, Task> CountedAsync(string number) => context =>
        context.Request.Headers["X-Amz-Target"] == "AmazonSQS.GetQueueAttributes"
            ? context.Response.WriteAsync($$$"""{"Attributes":{"ApproximateNumberOfMessages":"{{{number}}}"}}""")
            : Endpoint.Status(500)(context);

    static int Asked(Endpoint queue) => queue.Posted.Count(posted => posted.Headers["x-amz-target"] == "AmazonSQS.GetQueueAttributes");

    [Fact]
    public async Task The_length_of_the_queue_is_asked_for_once_a_minute() {
        await using var queue = await Endpoint.StartAsync();
        queue.Answer = CountedAsync("7");
        await using var app = await ReceiverApp.StartAsync(Sqs(queue));
        await Eventually.TrueAsync(() => Asked(queue) == 1);
        Assert.Contains("\"ApproximateNumberOfMessages\"", queue.Posted.Single(posted => posted.Headers["x-amz-target"] == "AmazonSQS.GetQueueAttributes").Body,
            StringComparison.Ordinal);
        await Eventually.TrueAsync(async () => (await SamplesAsync(app)).Any(sample => sample is { Name: "feedback_receiver_queue_length", Value: 7 }));
        var from = app.Clock.GetUtcNow();
        var asked = from;
        queue.Answer = context => {
            if (context.Request.Headers["X-Amz-Target"] == "AmazonSQS.GetQueueAttributes") asked = app.Clock.GetUtcNow();
            return CountedAsync("100000")(context);
        };
        await Eventually.TrueAsync(() => {
            if (Asked(queue) < 2) app.Clock.Advance(TimeSpan.FromSeconds(1));
            return Asked(queue) == 2;
        });
        Assert.True(asked - from >= TimeSpan.FromMinutes(1), $"{asked - from}");
        await Eventually.TrueAsync(async () => (await SamplesAsync(app)).Any(sample => sample is { Name: "feedback_receiver_queue_length", Value: 100_000 }));
    }

    [Fact]
    public async Task Where_the_length_of_the_queue_may_not_be_asked_for_it_is_not_there_that_is_said_once_and_the_queue_is_drained() {
        await using var queue = await Endpoint.StartAsync();
        queue.Answer = CountedAsync("7");
        await using var app = await ReceiverApp.StartAsync(Sqs(queue));
        await BecomesAsync(app, 7, "feedback_receiver_queue_length");
        queue.Answer = async context => {
            string target = context.Request.Headers["X-Amz-Target"].ToString().Split('.')[1];
            if (target == "GetQueueAttributes") context.Response.StatusCode = 403;
            bool empty = target == "ReceiveMessage" && app.Log.Text.Contains("no SNS envelope", StringComparison.Ordinal);
            if (empty) await Task.Delay(Timeout.Infinite, context.RequestAborted).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            else await context.Response.WriteAsync(target switch {
                "GetQueueAttributes" => """{"__type":"com.amazonaws.sqs#AccessDenied","message":"not for you"}""",
                "ReceiveMessage" => """{"Messages":[{"MessageId":"1","ReceiptHandle":"1","MD5OfBody":"7c1f7bb3f8bee22bcdd6e8ae693ebb2e","Body":"no JSON"}]}""",
                _ => """{"Successful":[{"Id":"0"}],"Failed":[]}""",
            });
        };
        int asked = Asked(queue);
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(30));
            return Asked(queue) > asked + 2;
        });
        await Eventually.TrueAsync(async () => !(await SamplesAsync(app)).Exists(sample => sample.Name == "feedback_receiver_queue_length"));
        Assert.Equal(2, app.Log.Text.Split("The queue's length is not known: ").Length);
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(TimeSpan.FromSeconds(30));
            return app.Log.Text.Contains("no SNS envelope", StringComparison.Ordinal);
        });
    }

    static string Root {
        get {
            string folder = AppContext.BaseDirectory;
            while (!File.Exists(Path.Combine(folder, "Program.cs"))) folder = Path.GetDirectoryName(folder)!;
            return folder;
        }
    }

    [Fact]
    public async Task The_metrics_go_out_by_OTLP_too_where_its_endpoint_is_set() {
        await using var collector = await Endpoint.StartAsync();
        await using var app = await ReceiverApp.StartAsync(["OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.Url, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL=100"]);
        await app.PostAsync(app.Sns.Bounce("a@example.com"));
        await Eventually.TrueAsync(() => collector.Posted.Any(posted => posted.Headers["content-type"] == "application/x-protobuf"
            && posted.Body.Contains("feedback_receiver.messages", StringComparison.Ordinal)));
        Assert.DoesNotContain(collector.Posted, posted => posted.Body.Contains("example.com", StringComparison.Ordinal));
    }

    [GeneratedRegex(@"^# TYPE ([a-z_]+) (counter|gauge|histogram)$")] private static partial Regex TypeLine();
    [GeneratedRegex(@"^# (HELP|UNIT) [a-z_]+ \S.*$")] private static partial Regex CommentLine();
    [GeneratedRegex("""^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+-]+|\+Inf)(?: [0-9]+)?$""")] private static partial Regex SampleLine();
    [GeneratedRegex("""([a-z_]+)="((?:[^"\\]|\\.)*)""")] private static partial Regex Label();
    [GeneratedRegex(@"^\| `(feedback_receiver_[a-z_]+)`[^|]*\| (counter|gauge|histogram) \|", RegexOptions.Multiline)] private static partial Regex MetricRow();
}
