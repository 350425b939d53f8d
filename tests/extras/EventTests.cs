using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

/// <summary>GET /bounces, /complaints and /events.</summary>
public sealed class EventTests {
    static readonly string[] Header = ["at", "address", "kind", "type", "subtype", "status", "detail", "recipient", "mailId", "subject", "source",
        "configurationSet", "snsMessageId", "id", "possible", "tags"];

    static string[] Addresses(JsonElement page) =>
        [.. page.GetProperty("events").EnumerateArray().Select(each => each.GetProperty("address").GetString()!.Split('@')[0])];

    /// <summary>Bounces of a0@example.com and so on, a minute apart, the last one the newest.</summary>
    static async Task<ReceiverApp> WithBouncesAsync(int count) {
        var app = await ReceiverApp.StartAsync();
        for (int i = 0; i < count; i++)
            await app.PostAsync(app.Sns.Bounce($"a{i}@example.com", $"mail-{i}", at: $"2026-11-24T07:{i:00}:00Z"));
        await app.CaughtUpAsync();
        return app;
    }

    [Theory]
    [InlineData("/bounces")]
    [InlineData("/complaints")]
    [InlineData("/events")]
    public async Task Where_nothing_happened_the_page_is_empty(string route) {
        await using var app = await ReceiverApp.StartAsync();
        using var response = await app.Private.GetAsync(route, TestContext.Current.CancellationToken);
        Assert.Equal("""{"events":[],"next":null}""", await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
        Assert.Equal("application/json", response.Content.Headers.ContentType?.MediaType);
        Assert.False(response.Headers.Contains("Link"));
    }

    [Fact]
    public async Task A_page_is_newest_first_and_its_events_are_those_of_the_history() {
        await using var app = await WithBouncesAsync(3);
        var page = (await app.GetAsync("/events")).Json;
        Assert.Equal(["a2", "a1", "a0"], Addresses(page));
        Assert.Equal(JsonValueKind.Null, page.GetProperty("next").ValueKind);
        Assert.Equal((await app.HistoryAsync("a2@example.com"))[0].GetRawText(), page.GetProperty("events")[0].GetRawText());
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    [InlineData(5)]
    public async Task Following_next_leads_once_through_everything_whatever_comes_meanwhile(int limit) {
        await using var app = await WithBouncesAsync(5);
        var seen = new List<string>();
        string? next = null;
        do {
            var page = (await app.GetAsync($"/bounces?limit={limit}" + (next is null ? "" : "&after=" + next))).Json;
            seen.AddRange(Addresses(page));
            next = page.GetProperty("next").GetString();
            await app.PostAsync(app.Sns.Bounce("later@example.com", $"later-{next}", at: "2026-11-24T07:59:00Z"));
        } while (next is not null);
        Assert.Equal(["a4", "a3", "a2", "a1", "a0"], seen);
    }

    [Fact]
    public async Task The_Link_header_is_the_same_question_for_the_page_after() {
        await using var app = await WithBouncesAsync(3);
        var seen = new List<string>();
        string? question = "/events?subject=Your%20offers&limit=1&format=csv";
        while (question is not null) {
            using var response = await app.Private.GetAsync(question, TestContext.Current.CancellationToken);
            string[] lines = (await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)).Split("\r\n");
            Assert.InRange(lines.Length, 2, 3); // the header, at most one event, and nothing after the last line
            seen.AddRange(lines[1..^1].Select(line => line.Split(',')[1]));
            question = response.Headers.TryGetValues("Link", out var links) ? links.Single() : null;
            Assert.True(question is null || (question.StartsWith("</events?subject=Your%20offers&limit=1&format=csv&after=", StringComparison.Ordinal)
                && question.EndsWith(">; rel=\"next\"", StringComparison.Ordinal)), question);
            question = question?.Split('<', '>')[1];
        }
        Assert.Equal(["a2@example.com", "a1@example.com", "a0@example.com"], seen);
    }

    [Theory]
    [InlineData("/bounces", "soft hard")]
    [InlineData("/complaints", "spam")]
    [InlineData("/events", "sent spam soft hard")]
    [InlineData("/events?kind=Complaint", "spam")]
    [InlineData("/events?kind=complaint", "spam")]
    [InlineData("/events?kind=Delivery", "sent")]
    [InlineData("/events?kind=Unheard", "")]
    [InlineData("/events?type=abuse", "spam")]
    [InlineData("/events?type=Transient", "soft")]
    [InlineData("/bounces?subtype=MailboxFull", "soft")]
    [InlineData("/events?domain=example.org", "spam")]
    [InlineData("/events?domain=B%C3%9CCHER.example", "sent")]
    [InlineData("/events?domain=xn--bcher-kva.example", "sent")]
    [InlineData("/events?domain=org", "")]
    [InlineData("/events?domain=%3Cb%3E", "")]
    [InlineData("/events?subject=Your%20offers&type=Permanent", "hard")]
    [InlineData("/events?subject=Your", "")]
    [InlineData("/events?source=news@shop.example.com&kind=Bounce", "soft hard")]
    [InlineData("/events?source=other@shop.example.com", "")]
    [InlineData("/events?configurationSet=shop&kind=Bounce", "soft hard")]
    [InlineData("/events?configurationSet=other", "")]
    [InlineData("/events?tag=campaign:november&kind=Bounce", "soft hard")]
    [InlineData("/events?tag=ses:configuration-set:shop&kind=Bounce", "soft hard")]
    [InlineData("/events?tag=campaign:december", "")]
    [InlineData("/events?since=2026-11-24T07:10:00Z&until=2026-11-24T07:20:00Z", "soft")]
    [InlineData("/events?since=2026-11-24T08:10:00%2B01:00&until=2026-11-24T08:20:00+01:00", "soft")]
    [InlineData("/events?since=2026-11-24T07:10&until=2026-11-24T07:20", "soft")]
    [InlineData("/events?since=2026-11-25", "")]
    [InlineData("/events?until=2026-11-24", "")]
    [InlineData("/events?since=2026-11-24&until=2026-11-25", "sent spam soft hard")]
    public async Task A_filter_lets_pass_what_it_names_and_nothing_else(string route, string expected) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("hard@example.com", "mail-1", at: "2026-11-24T07:00:00Z"));
        await app.PostAsync(app.Sns.Bounce("soft@example.com", "mail-2", "Transient", "MailboxFull", "2026-11-24T07:10:00Z"));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(["spam@example.org"], "mail-3", at: "2026-11-24T07:20:00Z")));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery("sent@b\u00FCcher.example", "mail-4", "2026-11-24T07:30:00Z")));

        var (status, page) = await app.GetAsync(route);
        Assert.Equal((200, expected), (status, string.Join(' ', Addresses(page))));
    }

    [Fact]
    public async Task Half_an_emoji_in_the_name_of_a_tag_hides_no_event() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["a@example.com"]).Replace("\"tags\":{", "\"tags\":{\"a\":[\"b\"],\"\\ud83d and more\":[\"\\ude00\"],", StringComparison.Ordinal)));
        Assert.Equal(["a"], Addresses((await app.GetAsync("/bounces?tag=a:b")).Json));
        Assert.Empty(Addresses((await app.GetAsync("/bounces?tag=a:c")).Json));
    }

    [Theory]
    [InlineData("/events?limit=0", "limit must be a number from 1 to 1000; '0' is not.")]
    [InlineData("/events?limit=1001", "limit must be a number from 1 to 1000; '1001' is not.")]
    [InlineData("/events?limit=-1", "limit must be")]
    [InlineData("/events?limit=many", "limit must be")]
    [InlineData("/events?limit=99999999999999999999", "limit must be")]
    [InlineData("/events?since=yesterday", "since must be a date or a time")]
    [InlineData("/events?since=2026-02-30", "since must be")]
    [InlineData("/events?since=1969-12-31", "since must be")]
    [InlineData("/events?until=9999-12-31T23:59:59.9999999Z", "until must be")]
    [InlineData("/events?until=24.11.2026", "until must be")]
    [InlineData("/events?after=0", "after must be the `next` of the page before")]
    [InlineData("/events?after=01a1a0bee20086947da44f3d33fc2d4", "after must be")]
    [InlineData("/events?after=01a1a0bee20086947da44f3d33fc2d4g", "after must be")]
    [InlineData("/events?after=01a1a0be-e200-8694-7da4-4f3d33fc2d4e", "after must be")]
    [InlineData("/events?format=xml", "format must be one of json csv")]
    [InlineData("/events?tag=campaign", "tag must be NAME:VALUE")]
    [InlineData("/events?tag=:november", "tag must be NAME:VALUE")]
    [InlineData("/events?colour=red", "'colour' is no parameter here; these are: since until")]
    [InlineData("/events?Since=2026-11-24", "'Since' is no parameter here")]
    [InlineData("/bounces?kind=Complaint", "'kind' is no parameter here")]
    [InlineData("/events?type=a&type=b", "type is given twice")]
    [InlineData("/events?after=%FF%00%01", "after must be")]
    public async Task What_cannot_be_right_is_400_and_named(string route, string why) {
        await using var app = await ReceiverApp.StartAsync();
        using var response = await app.Private.GetAsync(route, TestContext.Current.CancellationToken);
        Assert.Equal((400, "application/problem+json"), ((int)response.StatusCode, response.Content.Headers.ContentType?.MediaType));
        string body = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        Assert.StartsWith(why, JsonElement.Parse(body).GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("2026-11-24T10:00:00+02:00", true)]
    [InlineData("2026-11-24T10:00:00%2B02:00", true)]
    [InlineData("2026-11-24T10:00:00.001+02:00", false)]
    [InlineData("2026-11-24T08:00", true)]
    [InlineData("2026-11-24T08:00:00.0000001Z", false)]
    [InlineData("2026-11-24", true)]
    [InlineData("2026-11-25", false)]
    [InlineData("", true)]
    public async Task The_list_of_the_suppressed_reads_a_time_as_events_do(string since, bool has) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("a@example.com", at: "2026-11-24T08:00:00Z"));
        Assert.Equal(has, Addresses((await app.GetAsync("/events?since=" + since)).Json).Length == 1);
        Assert.Equal(has, (await app.GetAsync("/suppressed?limit=5&since=" + since)).Json.GetProperty("suppressed").GetArrayLength() == 1);
    }

    [Theory]
    [InlineData("since=01.11.2026", "since must be a date or a time")]
    [InlineData("since=11/01/2026", "since must be a date or a time")]
    [InlineData("since=10:00", "since must be a date or a time")]
    [InlineData("since=1969-12-31", "since must be a date or a time")]
    [InlineData("since=9999-12-31", "since must be a date or a time")]
    [InlineData("until=2026-11-24", "'until' is no parameter here; these are: ")]
    [InlineData("Reason=bounce", "'Reason' is no parameter here")]
    [InlineData("reason=bounce&reason=bounce", "reason is given twice.")]
    public async Task The_list_of_the_suppressed_refuses_what_events_refuse(string query, string why) {
        await using var app = await ReceiverApp.StartAsync();
        var (status, problem) = await app.GetAsync("/suppressed?" + query);
        Assert.Equal(400, status);
        Assert.StartsWith(why, problem.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_was_wrong_is_told_in_a_hundred_characters() {
        await using var app = await ReceiverApp.StartAsync();
        var (status, problem) = await app.GetAsync("/events?limit=" + new string('x', 5000));
        Assert.Equal(400, status);
        Assert.InRange(problem.GetProperty("detail").GetString()!.Length, 100, 200);
    }

    [Theory]
    [InlineData("1", 1)]
    [InlineData("1000", 3)]
    [InlineData("", 3)]
    public async Task The_least_and_the_greatest_limit_are_taken(string limit, int expected) {
        await using var app = await WithBouncesAsync(3);
        Assert.Equal(expected, Addresses((await app.GetAsync("/events?limit=" + limit)).Json).Length);
    }

    [Fact]
    public async Task Without_a_limit_a_page_has_a_hundred_events() {
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOfBounces(101));
        await app.CaughtUpAsync();
        Assert.Equal(101, Addresses((await app.GetAsync("/events?limit=1000")).Json).Length);
        Assert.Equal(100, Addresses((await app.GetAsync("/events")).Json).Length);
    }

    [Theory]
    [InlineData("=1+1", "'=1+1")]
    [InlineData("+1", "'+1")]
    [InlineData("-1", "'-1")]
    [InlineData("@SUM(A1)", "'@SUM(A1)")]
    [InlineData("\tx", "'\tx")]
    [InlineData("\rx", "\"'\rx\"")]
    [InlineData("\nx", "\"'\nx\"")]
    [InlineData("a\nb", "\"a\nb\"")]
    [InlineData("a, b", "\"a, b\"")]
    [InlineData("say \"a\"", "\"say \"\"a\"\"\"")]
    [InlineData("=HYPERLINK(\"http://evil.example\",\"x\")", "\"'=HYPERLINK(\"\"http://evil.example\"\",\"\"x\"\")\"")]
    [InlineData("a, \"b\"\r\nc", "\"a, \"\"b\"\"\r\nc\"")]
    [InlineData("plain = text", "plain = text")]
    [InlineData("a;=1+1", "a;'=1+1")]
    [InlineData("a\t@SUM(A1)", "a\t'@SUM(A1)")]
    [InlineData("a\n=1", "\"a\n'=1\"")]
    [InlineData("\n=1", "\"'\n'=1\"")]
    [InlineData(";;-1", ";;'-1")]
    [InlineData("a; =1, b", "\"a; =1, b\"")]
    [InlineData("a;\"=1+1;b", "\"a;\"\"'=1+1;b\"")]
    public async Task A_CSV_cell_is_quoted_and_never_run_by_a_spreadsheet(string subject, string cell) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["jane@example.com"]).Replace("\"Your offers\"",
            JsonSerializer.Serialize(subject), StringComparison.Ordinal)));
        using var response = await app.Private.GetAsync("/events?format=csv", TestContext.Current.CancellationToken);
        string csv = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        Assert.Equal("text/csv", response.Content.Headers.ContentType?.MediaType);
        Assert.StartsWith(string.Join(',', Header) + "\r\n2026-11-24T07:00:00Z,jane@example.com,Bounce,Permanent,General,5.1.1,"
            + "smtp; 550 5.1.1 user unknown,jane@example.com,0100019a00000000-mail," + cell + ",news@shop.example.com,shop,", csv, StringComparison.Ordinal);
        Assert.EndsWith(",\"{\"\"ses:configuration-set\"\":[\"\"shop\"\"],\"\"campaign\"\":[\"\"november\"\"]}\"\r\n", csv, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("true", "a@example.com", "b@example.com")]
    [InlineData("", "a@example.com")]
    public async Task CSV_says_of_whom_a_complaint_is_only_possible(string possible, params string[] recipients) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(recipients)));
        string csv = await app.Private.GetStringAsync(new Uri("/complaints?format=csv", UriKind.Relative), TestContext.Current.CancellationToken);
        Assert.All(csv.Split("\r\n")[1..^1], line => Assert.Equal(possible, line.Split(',')[Array.IndexOf(Header, "possible")]));
    }

    [Fact]
    public async Task An_empty_CSV_is_its_header() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(string.Join(',', Header) + "\r\n", await app.Private.GetStringAsync(new Uri("/complaints?format=csv", UriKind.Relative),
            TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task A_page_ends_early_rather_than_grow_without_bound() {
        await using var app = await ReceiverApp.StartAsync();
        string longWinded = new('x', 200_000);
        for (int i = 0; i < 25; i++) await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce([$"a{i}@example.com"], $"mail-{i}")
            .Replace("user unknown", longWinded, StringComparison.Ordinal)));
        foreach (string format in (string[])["json", "csv"]) {
            using var response = await app.Private.GetAsync("/events?format=" + format, TestContext.Current.CancellationToken);
            byte[] body = await response.Content.ReadAsByteArrayAsync(TestContext.Current.CancellationToken);
            Assert.InRange(body.Length, 4_000_000, 4_500_000);
            Assert.True(response.Headers.Contains("Link"));
        }
    }

    [Theory]
    [InlineData("/bounces")]
    [InlineData("/events?format=csv")]
    [InlineData("/stats")]
    [InlineData("/stats?by=subject")]
    [InlineData("/stats?by=didYouMean")]
    [InlineData("/stats?by=prevented")]
    public async Task What_cannot_be_told_is_503_and_never_an_empty_answer(string route) {
        await using var app = await WithBouncesAsync(1);
        await app.Services.GetRequiredService<LiteDbStore>().StopAsync(TestContext.Current.CancellationToken);
        using var response = await app.Private.GetAsync(route, TestContext.Current.CancellationToken);
        Assert.Equal(503, (int)response.StatusCode);
        Assert.Equal("5", response.Headers.GetValues("Retry-After").Single());
    }

    /// <summary>Sees one request come, its client go, and how it ends.</summary>
    sealed class Watch(string route) : IStartupFilter {
        public TaskCompletionSource Begun { get; } = new();
        public TaskCompletionSource Gone { get; } = new();
        public TaskCompletionSource<Task> Ended { get; } = new();

        public Action<IApplicationBuilder> Configure(Action<IApplicationBuilder> next) => app => {
            app.UseWhen(context => context.Request.Path == route, watched => watched.Use(WatchAsync));
            next(app);
        };

        async Task WatchAsync(HttpContext context, RequestDelegate next) {
            var ends = next(context);
            using var gone = context.RequestAborted.Register(() => Gone.TrySetResult());
            Begun.TrySetResult();
            Ended.TrySetResult(await Task.WhenAny(ends));
        }
    }

    /// <summary>The name of this boot is read from a file when feedback.db is opened, and written there before the first write to it. As
    /// a pipe it holds that writer until somebody reads, and with it all that would read feedback.db.</summary>
    [Fact]
    public async Task While_feedback_db_is_built_anew_no_part_of_it_is_told_for_the_whole() {
        await using var first = await WithBouncesAsync(3);
        Assert.Equal(200, await first.StatusAsync("/events"));
        await first.StopAsync();
        foreach (string file in Directory.GetFiles(first.Folder, "feedback*")) File.Delete(file);
        Directory.CreateDirectory(first.FeedbackDb + ".open"); // where a file must be before the first write to feedback.db
        await using var app = await ReceiverApp.StartAsync(folder: first.Folder);
        foreach (string path in (string[])["/events", "/bounces", "/stats?by=day", "/stats?by=subject"]) Assert.Equal(503, await app.StatusAsync(path));
        var (status, report) = await app.GetAsync("/status");
        Assert.Equal((200, 0), (status, report.GetProperty("rates").GetArrayLength()));
        Assert.DoesNotContain("topic-unconfirmed", report.GetRawText(), StringComparison.Ordinal);

        Directory.Delete(first.FeedbackDb + ".open");

        await Eventually.TrueAsync(async () => await app.StatusAsync("/events") == 200);
        Assert.Equal(3, (await app.GetAsync("/events")).Json.GetProperty("events").GetArrayLength());
        Assert.Equal(2, (await app.GetAsync("/status")).Json.GetProperty("rates").GetArrayLength());
    }

    sealed class HeldWriter : IDisposable {
        readonly string _pipe;

        public HeldWriter(string feedbackDb) {
            using var mkfifo = System.Diagnostics.Process.Start("mkfifo", _pipe = feedbackDb + ".open.part");
            mkfifo.WaitForExit();
        }

        public Task<string> LetGoAsync() => File.ReadAllTextAsync(_pipe, TestContext.Current.CancellationToken);
        public void Dispose() => File.OpenHandle(_pipe, FileMode.OpenOrCreate, FileAccess.ReadWrite).Dispose(); // whoever still waits
    }

    [Theory]
    [InlineData("/bounces", "")]
    [InlineData("/events", "?format=csv")]
    [InlineData("/stats", "?by=subject")]
    [InlineData("/stats", "?by=didYouMean")]
    [InlineData("/stats", "?by=prevented")]
    public async Task When_the_client_hangs_up_nothing_more_is_read_for_it(string route, string query) {
        await using var first = await WithBouncesAsync(3);
        Assert.Equal(200, await first.StatusAsync("/events")); // so that feedback.db has them
        await first.StopAsync();
        var (watch, cancellation) = (new Watch(route), TestContext.Current.CancellationToken);
        await using var app = await ReceiverApp.StartAsync(folder: first.Folder, with: builder => builder.Services.AddSingleton<IStartupFilter>(watch));
        using var held = new HeldWriter(first.FeedbackDb);
        await app.PostAsync(app.Sns.Bounce("later@example.com"));
        using (var socket = new System.Net.Sockets.TcpClient()) {
            await socket.ConnectAsync(System.Net.IPAddress.Loopback, app.Private.BaseAddress!.Port, cancellation);
            await socket.GetStream().WriteAsync(System.Text.Encoding.ASCII.GetBytes($"GET {route}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"), cancellation);
            await watch.Begun.Task.WaitAsync(TimeSpan.FromSeconds(30), cancellation);
        }
        await watch.Gone.Task.WaitAsync(TimeSpan.FromSeconds(30), cancellation);
        await held.LetGoAsync();
        var ended = await watch.Ended.Task.WaitAsync(TimeSpan.FromSeconds(30), cancellation);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => ended);
    }

    [Theory]
    [InlineData("/bounces")]
    [InlineData("/complaints")]
    [InlineData("/events")]
    [InlineData("/stats")]
    [InlineData("/status")]
    [InlineData("/openapi/v1.json")]
    public async Task The_webhook_listener_tells_strangers_nothing(string route) {
        await using var app = await ReceiverApp.StartAsync(["Api:Key=sixteen-characters"]);
        using var response = await app.Webhook.GetAsync(route, TestContext.Current.CancellationToken);
        Assert.Equal(401, (int)response.StatusCode);
    }
}
