using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Playwright;

/// <summary>A real Chromium, from PATH or named by the environment variable CHROMIUM; Playwright downloads none.</summary>
public sealed class Chromium : IAsyncLifetime {
    static readonly string? Executable = Environment.GetEnvironmentVariable("CHROMIUM")
        ?? (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)
            .SelectMany(folder => new[] { "chromium", "chromium-browser", "google-chrome" }.Select(name => Path.Combine(folder, name)))
            .FirstOrDefault(File.Exists);
    IPlaywright? _playwright;
    public IBrowser Browser { get; private set; } = null!;
    public static bool IsThere => Executable is not null;

    public async ValueTask InitializeAsync() {
        if (!IsThere) return;
        _playwright = await Playwright.CreateAsync();
        Browser = await _playwright.Chromium.LaunchAsync(new() { ExecutablePath = Executable });
    }

    public async ValueTask DisposeAsync() {
        if (_playwright is null) return;
        await Browser.DisposeAsync();
        _playwright.Dispose();
    }
}

/// <summary>GET / in a real browser: what it shows, what can be done by keyboard, and what strangers' texts cannot do.</summary>
public sealed class PageTests(Chromium chromium) : IClassFixture<Chromium>, IAsyncDisposable {
    const string Key = "a key of sixteen letters or more";
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;
    readonly List<string> _complaints = [];
    readonly List<IBrowserContext> _contexts = [];

    static Task<ReceiverApp> StartAsync(params string[] settings) {
        Assert.SkipUnless(Chromium.IsThere, "Chromium is not on PATH (apt-get install chromium); CHROMIUM may name it");
        return ReceiverApp.StartAsync(settings, with: builder => builder.Services.AddSingleton(TimeProvider.System));
    }

    /// <summary>Opens the page and waits until it is complete. Whatever the browser complains about is collected.</summary>
    async Task<IPage> OpenAsync(Uri url, BrowserNewContextOptions? options = null) {
        var context = await chromium.Browser.NewContextAsync(options);
        _contexts.Add(context);
        await context.AddInitScriptAsync("""
            window.violations = [];
            addEventListener('securitypolicyviolation', e => window.violations.push(e.violatedDirective + ' ' + e.sample));
            """);
        var page = await context.NewPageAsync();
        page.SetDefaultTimeout(15_000);
        // A look-up's 404 is its answer, but a browser writes down every status over 399.
        page.Console += (_, message) => {
            if (message.Type is "error" or "warning" && !message.Location.Contains("/suppressed/", StringComparison.Ordinal)
                && !message.Location.Contains("/history/", StringComparison.Ordinal)) _complaints.Add(message.Text + message.Location);
        };
        page.PageError += (_, error) => _complaints.Add(error);
        await page.GotoAsync(url.ToString());
        await page.WaitForSelectorAsync("html[data-complete]");
        return page;
    }

    /// <summary>No page is left that goes on asking a port, which another test may have by then.</summary>
    public async ValueTask DisposeAsync() {
        foreach (var context in _contexts) await context.CloseAsync();
    }

    async Task HasNoComplaintAsync(IPage page) {
        Assert.Empty(await page.EvaluateAsync<string[]>("window.violations"));
        Assert.Empty(_complaints);
    }

    static Task<string> TextAsync(IPage page, string selector) => page.InnerTextAsync(selector);

    static Task<byte[]> PictureAsync(IPage page, string name) => page.ScreenshotAsync(new() {
        Path = Path.Combine(AppContext.BaseDirectory, "screenshots", name + ".png"), FullPage = true,
    });

    /// <summary>A Notification about a mail with this text for its subject, its tag, and the other side's words.</summary>
    static string Hostile(FakeSns sns, string ses, string text) {
        var json = JsonNode.Parse(ses)!;
        json["mail"]!["commonHeaders"]!["subject"] = text;
        json["mail"]!["tags"] = new JsonObject { [text] = new JsonArray(text) };
        if (json["bounce"] is { } bounce) bounce["bouncedRecipients"]![0]!["diagnosticCode"] = text;
        return sns.Signed(json.ToJsonString());
    }

    static async Task PostAsync(ReceiverApp app, string body) {
        Assert.Equal(200, (await app.PostAsync(body)).Status);
        await app.CaughtUpAsync();
    }

    static string Now => DateTimeOffset.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", System.Globalization.CultureInfo.InvariantCulture);

    [Fact]
    public async Task A_day_with_a_bad_mailing_shows_at_a_glance_what_is_wrong() {
        await using var app = await StartAsync();
        Assert.Equal(0, (await SimulatorTests.RunAsync(app, "simulate", "day")).Code);
        await app.CaughtUpAsync(seconds: 180);

        var page = await OpenAsync(app.Private.BaseAddress!, new() { ViewportSize = new() { Width = 1200, Height = 900 } });

        string complaints = await TextAsync(page, "#complaint");
        Assert.Contains("0.60 %", complaints, StringComparison.Ordinal);
        Assert.Contains("sending may be paused", complaints, StringComparison.Ordinal);
        Assert.Contains("59 complaints, 9,833 deliveries, 24 hours", complaints, StringComparison.Ordinal);
        Assert.Contains("110 bounces, 10,000 mails, 7 days", await TextAsync(page, "#bounce"), StringComparison.Ordinal);
        Assert.Contains("/stats?by=subject&kind=Complaint'", await TextAsync(page, "#findings"), StringComparison.Ordinal);
        Assert.StartsWith("subject\tcount\nWe miss you!\t56\n", await TextAsync(page, "#subjects table"), StringComparison.Ordinal);
        Assert.StartsWith("tag\tcount\ncampaign: we-miss-you\t56\n", await TextAsync(page, "#tags table"), StringComparison.Ordinal);
        Assert.StartsWith("domain\tcount\noldmail.example\t", await TextAsync(page, "#domains table"), StringComparison.Ordinal);
        Assert.Matches("@(gmial|hotmial|yaho)\\.com\\t\\S+@(gmail|hotmail|yahoo)\\.com", await TextAsync(page, "#typos table"));
        Assert.Equal(10, await page.Locator("#full tbody tr").CountAsync());

        Assert.Equal(30 * 3, await page.Locator("#days svg[role=img] rect").CountAsync());
        Assert.Equal(30, await page.Locator("#days tbody tr").CountAsync());
        string? label = await page.Locator("#days svg[role=img]").GetAttributeAsync("aria-label");
        Assert.Contains("59 complaints from", label, StringComparison.Ordinal);
        Assert.Equal(0, await page.Locator("#steps:visible").CountAsync());
        await PictureAsync(page, "light");
        await page.SetViewportSizeAsync(1000, 900); // extras/dashboard.png is this one
        await page.ScreenshotAsync(new() { Path = Path.Combine(AppContext.BaseDirectory, "screenshots", "dashboard.png") });
        await page.SetViewportSizeAsync(1200, 900);
        await page.EmulateMediaAsync(new() { ColorScheme = ColorScheme.Dark });
        await PictureAsync(page, "dark");
        await page.EmulateMediaAsync(new() { ColorScheme = ColorScheme.Light });
        await page.SetViewportSizeAsync(375, 800);
        Assert.True(await page.EvaluateAsync<bool>("document.documentElement.scrollWidth <= innerWidth"));
        await PictureAsync(page, "phone");
        await HasNoComplaintAsync(page);
    }

    [Fact]
    public async Task An_address_is_explained_lifted_and_suppressed_again_by_keyboard_alone() {
        await using var app = await StartAsync();
        await PostAsync(app, app.Sns.Bounce("a+b@example.com", at: Now));
        var page = await OpenAsync(app.Private.BaseAddress!);

        int lookups = 0;
        page.Request += (_, request) => lookups += request.Url.Contains("/suppressed/", StringComparison.Ordinal) ? 1 : 0;
        await page.FocusAsync("#address");
        await page.Keyboard.TypeAsync("A+B@example.com");
        await page.Keyboard.PressAsync("Enter");
        await page.WaitForSelectorAsync("#answer strong:has-text('Suppressed: bounce')");
        Assert.Contains("550 5.1.1 user unknown", await TextAsync(page, "#answer"), StringComparison.Ordinal);
        Assert.Contains("Bounce Permanent General", await TextAsync(page, "#answer table"), StringComparison.Ordinal);

        await page.Keyboard.PressAsync("Tab"); // Explain
        await page.Keyboard.PressAsync("Tab"); // Lift
        await page.Keyboard.PressAsync("Enter");
        Assert.Equal("Cancel", await page.EvaluateAsync<string>("document.activeElement.textContent"));
        await page.Keyboard.PressAsync("Escape");
        Assert.Equal(200, await app.StatusAsync("/suppressed/a+b@example.com"));

        await page.WaitForSelectorAsync("#answer button:focus:text-is('Lift')");
        Assert.Equal(1, lookups); // nothing was done, so nothing is asked again and what is read stays where it is
        await page.Keyboard.PressAsync("Enter");
        await page.Keyboard.PressAsync("Shift+Tab");
        Assert.Equal("Lift", await page.EvaluateAsync<string>("document.activeElement.textContent"));
        await page.Keyboard.PressAsync("Enter");
        await page.WaitForSelectorAsync("#answer strong:has-text('Not suppressed')");
        Assert.Equal(404, await app.StatusAsync("/suppressed/a+b@example.com"));

        await page.WaitForSelectorAsync("#answer button:focus:text-is('Suppress')");
        await page.Keyboard.PressAsync("Enter");
        await page.FocusAsync("#note input");
        await page.Keyboard.TypeAsync("asked by phone");
        await page.Keyboard.PressAsync("Enter");
        await page.WaitForSelectorAsync("#answer strong:has-text('Suppressed: manual')");
        Assert.Equal("asked by phone", (await app.GetAsync("/suppressed/a+b@example.com")).Json.Text("note"));
        await HasNoComplaintAsync(page);
    }

    [Fact]
    public async Task The_answer_to_an_earlier_question_does_not_take_the_place_of_a_later_one() {
        await using var app = await StartAsync();
        var page = await OpenAsync(app.Private.BaseAddress!);
        var hold = new TaskCompletionSource();
        await page.RouteAsync("**/suppressed/slow*", async route => {
            await hold.Task;
            await route.ContinueAsync();
        });
        foreach (string name in (string[])["slow", "quick"]) {
            await page.FillAsync("#address", name + "@example.com");
            await page.Keyboard.PressAsync("Enter");
        }
        await page.WaitForSelectorAsync("#answer h3:has-text('quick@example.com')");
        await page.RunAndWaitForRequestFinishedAsync(() => {
            hold.SetResult();
            return Task.CompletedTask;
        }, new() { Predicate = request => request.Url.Contains("/suppressed/slow", StringComparison.Ordinal) });
        await page.EvaluateAsync("fetch('health').then(answer => answer.text())"); // what had come by then was shown, or was not
        Assert.Equal("quick@example.com", await TextAsync(page, "#answer h3"));
    }

    [Theory]
    [InlineData("nobody@example.com", "Not suppressed")]
    [InlineData("no address", "That is no e-mail address.")]
    [InlineData("../status", "That is no e-mail address.")]
    [InlineData("<img src=x onerror=window.pwned=1>@example.com", "no e-mail address")]
    public async Task What_is_not_known_or_no_address_is_said_so(string address, string said) {
        await using var app = await StartAsync();
        var page = await OpenAsync(app.Private.BaseAddress!);
        await page.FillAsync("#address", address);
        await page.Keyboard.PressAsync("Enter");
        await page.WaitForSelectorAsync($"#answer:has-text('{said}')");
        Assert.False(await page.EvaluateAsync<bool>("'pwned' in window"));
        await HasNoComplaintAsync(page);
    }

    [Fact]
    public async Task Strangers_texts_never_become_markup_links_or_turned_lines() {
        await using var app = await StartAsync();
        string[] texts = ["<img src=x onerror=window.pwned=1>", "</script><script>window.pwned=1</script>", "javascript:window.pwned=1",
            "\u202egpj.exe\u2066 \u0007\u200e", "{{constructor.constructor('window.pwned=1')()}}", "<svg/onload=window.pwned=1>",
            new('x', 10_000),
            "'\"><a href=javascript:window.pwned=1>click</a>", "</bdi></td></table><style>*{display:none}</style>"];
        for (int i = 0; i < texts.Length; i++) {
            await PostAsync(app, Hostile(app.Sns, FakeSns.SesComplaint([$"c{i}@example.com"], $"mail-{i}", at: Now), texts[i]));
            await PostAsync(app, Hostile(app.Sns, FakeSns.SesBounce([$"b{i}@example.com"], $"mail-{i}", at: Now), texts[i]));
        }
        await PostAsync(app, app.Sns.Bounce("<script>window.pwned=1</script>@gmial.com", "mail-a", "Transient", "MailboxFull", Now));
        await PostAsync(app, app.Sns.Bounce("javascript:window.pwned=1@gmial.com", "mail-b", at: Now));

        var page = await OpenAsync(app.Private.BaseAddress!, new() { ViewportSize = new() { Width = 375, Height = 800 } });
        for (int i = 0; i < texts.Length; i++) {
            await page.FillAsync("#address", $"b{i}@example.com");
            await page.Keyboard.PressAsync("Enter");
            await page.WaitForSelectorAsync($"#answer h3:has-text('b{i}@example.com')");
            await page.WaitForSelectorAsync("#answer table");
            await IsInertAsync(page);
        }
        Assert.Contains("<img src=x onerror=window.pwned=1>", await TextAsync(page, "#subjects"), StringComparison.Ordinal);
        Assert.Contains("javascript:window.pwned=1: javascript:window.pwned=1", await TextAsync(page, "#tags"), StringComparison.Ordinal);
        Assert.DoesNotContain('\u202e', await TextAsync(page, "body"));
        // Letters that run from right to left turn nothing round them.
        Assert.NotEqual(0, await page.Locator("#subjects tbody th > bdi").CountAsync());
        Assert.Equal(0, await page.Locator("#subjects tbody th:not(:has(> bdi)), #tags tbody th:not(:has(> bdi)), #typos td:not(:has(> bdi)), #answer td + td:not(:has(> bdi))").CountAsync());
        Assert.True(await page.EvaluateAsync<bool>("document.documentElement.scrollWidth <= innerWidth"));
        await PictureAsync(page, "hostile");
        foreach (var each in await page.Locator("main a").AllAsync()) {
            await each.ClickAsync();
            await IsInertAsync(page);
        }
        await HasNoComplaintAsync(page);
    }

    static async Task IsInertAsync(IPage page) {
        Assert.False(await page.EvaluateAsync<bool>("'pwned' in window"));
        Assert.Equal(0, await page.Locator("img, iframe, object, embed, body style, [onload], [onerror]").CountAsync());
        Assert.Equal(1, await page.Locator("script").CountAsync());
        Assert.Equal(0, await page.Locator("a:not([href^='#'])").CountAsync());
    }

    [Fact]
    public async Task An_empty_installation_shows_the_next_three_steps_and_no_empty_charts() {
        await using var app = await StartAsync();
        var page = await OpenAsync(app.Private.BaseAddress!);
        Assert.Equal(3, await page.Locator("#steps li:visible").CountAsync());
        Assert.Contains("aws sns subscribe --topic-arn " + FakeSns.TopicArn, await TextAsync(page, "#steps"), StringComparison.Ordinal);
        Assert.Equal(0, await page.Locator("svg:visible").CountAsync());
        await PictureAsync(page, "empty");
        await HasNoComplaintAsync(page);
    }

    [Fact]
    public async Task When_the_receiver_does_not_answer_nothing_of_another_address_stands_there() {
        await using var app = await StartAsync();
        var page = await OpenAsync(app.Private.BaseAddress!);
        await page.FillAsync("#address", "free@example.com");
        await page.PressAsync("#address", "Enter");
        await page.WaitForSelectorAsync("#answer strong:has-text('Not suppressed')");
        await page.RouteAsync("**/suppressed/*", route => route.AbortAsync());
        await page.FillAsync("#address", "jane@example.com");
        await page.PressAsync("#address", "Enter");
        await page.WaitForSelectorAsync("#answer:has-text('the receiver does not answer')");
        Assert.DoesNotContain("Not suppressed", await TextAsync(page, "#answer"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_could_not_be_read_is_read_again_without_a_message() {
        await using var app = await StartAsync();
        var page = await OpenAsync(app.Private.BaseAddress!);
        await page.RouteAsync("**/status", route => route.AbortAsync());
        await PostAsync(app, app.Sns.Bounce("jane@example.com", at: Now));
        await page.WaitForSelectorAsync("#live:has-text('does not answer')");
        await page.UnrouteAsync("**/status");
        await page.WaitForSelectorAsync("#store:has-text('1 addresses suppressed')");
        await page.WaitForSelectorAsync("#live:has-text('Live')");
    }

    [Fact]
    public async Task A_rate_whose_denominator_is_not_collected_is_unknown_and_not_zero() {
        await using var app = await StartAsync();
        await PostAsync(app, app.Sns.Bounce("jane@example.com", at: Now));
        var page = await OpenAsync(app.Private.BaseAddress!);
        foreach (string rate in (string[])["#bounce", "#complaint"]) {
            Assert.StartsWith("unknown", await TextAsync(page, rate + " .rate"), StringComparison.Ordinal);
            Assert.DoesNotContain("0.00 %", await TextAsync(page, rate), StringComparison.Ordinal);
            Assert.Equal(0, await page.Locator(rate + " svg").CountAsync());
        }
        Assert.Contains("1 bounces, unknown number of mails, 24 hours", await TextAsync(page, "#bounce"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task On_the_webhook_listener_the_key_as_a_Basic_password_opens_it_and_lifts() {
        await using var app = await StartAsync("Api:Key=" + Key);
        await PostAsync(app, app.Sns.Bounce("jane@example.com", at: Now));
        Assert.Equal(HttpStatusCode.Unauthorized, (await app.Webhook.GetAsync("/", Cancellation)).StatusCode);
        var page = await OpenAsync(new(app.Webhook.BaseAddress!, "/#jane@example.com"),
            new() { HttpCredentials = new() { Username = "team", Password = Key } });
        await page.ClickAsync("#answer button:has-text('Lift')");
        await page.ClickAsync("#yes");
        await page.WaitForSelectorAsync("#answer strong:has-text('Not suppressed')");
        Assert.Equal(404, await app.StatusAsync("/suppressed/jane@example.com"));
        await page.WaitForSelectorAsync("#live:has-text('Live')");
    }

    [Fact]
    public async Task Who_cannot_see_the_page_is_told_whether_it_is_live_and_what_came_of_a_question() {
        await using var app = await StartAsync();
        var page = await OpenAsync(app.Private.BaseAddress!);
        await page.GetByRole(AriaRole.Status).Filter(new() { HasText = "Live: this page follows what arrives." }).WaitForAsync();
        await page.FillAsync("#address", "jane@example.com");
        await page.Keyboard.PressAsync("Enter");
        await page.Locator("[aria-live=polite]").Filter(new() { HasText = "Not suppressed" }).WaitForAsync();
    }

    [Fact]
    public async Task Each_answer_is_asked_for_once_and_before_the_page_is_read_to_its_end() {
        await using var app = await StartAsync();
        var page = await OpenAsync(app.Private.BaseAddress!);

        string[] asked = await page.EvaluateAsync<string[]>("""
            performance.getEntriesByType('resource').filter(each => !each.name.endsWith('/live') && !each.name.includes('didYouMean')
                    && each.startTime < document.documentElement.dataset.complete)
                .map(each => each.initiatorType + ' ' + each.name.split('/').at(-1))
            """);

        Assert.Equal(["link bounces?limit=200", "link complaints?limit=200", "link stats?by=day", "link status"], asked.Order());
        await HasNoComplaintAsync(page);
    }

    [Fact]
    public async Task What_arrives_shows_without_a_reload() {
        await using var app = await StartAsync();
        await PostAsync(app, app.Sns.Bounce("jane@example.com", at: Now));
        var page = await OpenAsync(app.Private.BaseAddress!);
        await page.WaitForSelectorAsync("#live:has-text('Live')");
        await page.ClickAsync("summary");
        await page.FocusAsync("#domains [role=region]"); // a keyboard's place, and what was unfolded, are left alone
        await page.EvaluateAsync("window.place = document.activeElement");
        await PostAsync(app, app.Sns.Bounce("joe@example.com", "mail-2", at: Now));
        await page.WaitForSelectorAsync("#bounce:has-text('2 bounces')");
        Assert.True(await page.EvaluateAsync<bool>("window.place === document.activeElement"));
        await page.WaitForSelectorAsync("#days tbody tr:first-child td:nth-child(4):text-is('2')");
        await HasNoComplaintAsync(page);
    }

    [Fact]
    public async Task No_serious_violation_of_accessibility_is_found() {
        string? axe = Environment.GetEnvironmentVariable("AXE_CORE");
        Assert.SkipUnless(axe is not null, "AXE_CORE does not name the folder of the npm package axe-core");
        await using var app = await StartAsync();
        var page = await OpenAsync(app.Private.BaseAddress!);
        await IsAccessibleAsync("empty");
        foreach (string type in (string[])["Permanent", "Transient"])
            for (int i = 0; i < 10; i++) await PostAsync(app, app.Sns.Bounce($"user{i}@gmial.com", $"mail-{i}", type, "MailboxFull", Now));
        await PostAsync(app, app.Sns.Signed(FakeSns.SesComplaint(["jane@example.com"], "mail", at: Now)));
        await PostAsync(app, app.Sns.Signed(FakeSns.SesDelivery("jane@example.com", "mail", Now)));
        await page.GotoAsync(app.Private.BaseAddress + "#jane@example.com");
        await page.ReloadAsync();
        await page.WaitForSelectorAsync("html[data-complete]");
        await page.WaitForSelectorAsync("#answer table");
        await page.ClickAsync("summary");
        foreach (var scheme in (ColorScheme[])[ColorScheme.Dark, ColorScheme.Light]) {
            await page.EmulateMediaAsync(new() { ColorScheme = scheme });
            await IsAccessibleAsync($"{scheme}");
        }
        await page.ClickAsync("#answer button");
        await IsAccessibleAsync("dialog");
        await PictureAsync(page, "dialog");

        async Task IsAccessibleAsync(string what) {
            await page.EvaluateAsync(await File.ReadAllTextAsync(Path.Combine(axe, "axe.min.js"), Cancellation));
            var found = await page.EvaluateAsync<JsonElement>("""
                axe.run().then(r => r.violations.map(v => ({ id: v.id, impact: v.impact, nodes: v.nodes.map(n => n.html) })))
                """);
            var serious = found.EnumerateArray().Where(each => each.Text("impact") is "serious" or "critical");
            Assert.Empty(serious.Select(each => $"{what}: {each}"));
        }
    }

    // ---- Without a browser

    [Fact]
    public async Task The_policy_lets_only_the_pages_own_script_and_style_run() {
        await using var app = await ReceiverApp.StartAsync();
        using var answer = await app.Private.GetAsync("/", Cancellation);
        Assert.Equal("text/html; charset=utf-8", $"{answer.Content.Headers.ContentType}");
        string policy = string.Join(",", answer.Headers.GetValues("Content-Security-Policy"));
        Assert.Matches("^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; connect-src 'self'; ", policy);
        Assert.Contains("frame-ancestors 'none'; require-trusted-types-for 'script'; ", policy, StringComparison.Ordinal);
        Assert.EndsWith("trusted-types 'none'", policy, StringComparison.Ordinal);
        Assert.DoesNotContain("unsafe", policy, StringComparison.Ordinal);
        string html = await answer.Content.ReadAsStringAsync(Cancellation);
        Assert.InRange(html.Split('\n').Length, 1, 401);
        Assert.DoesNotMatch("innerHTML|outerHTML|insertAdjacentHTML|document\\.write|eval\\(", html);
        Assert.DoesNotMatch("https?://(?!www\\.w3\\.org/2000/svg|<this host>)", html);
    }

    static async Task<StreamReader> FollowAsync(ReceiverApp app) {
        var answer = await app.Private.GetAsync("/live", HttpCompletionOption.ResponseHeadersRead, Cancellation);
        Assert.Equal("text/event-stream", answer.Content.Headers.ContentType!.MediaType);
        var lines = new StreamReader(await answer.Content.ReadAsStreamAsync(Cancellation));
        Assert.Equal((": hello", ""), (await lines.ReadLineAsync(Cancellation), await lines.ReadLineAsync(Cancellation)));
        return lines;
    }

    // Lets the clock run until the next event is there.
    static async Task<string?> NextAsync(ReceiverApp app, StreamReader lines, TimeSpan step) {
        var line = lines.ReadLineAsync(Cancellation).AsTask();
        await Eventually.TrueAsync(() => {
            app.Clock.Advance(step);
            return line.IsCompleted;
        });
        Assert.Equal("", await lines.ReadLineAsync(Cancellation));
        return await line;
    }

    [Fact]
    public async Task A_follower_hears_the_newest_number_once_however_many_messages_came_in_that_second() {
        await using var app = await ReceiverApp.StartAsync();
        using var lines = await FollowAsync(app);
        for (int i = 0; i < 50; i++) await PostAsync(app, app.Sns.Bounce($"user{i}@example.com", $"mail-{i}"));
        string forged = app.Sns.Bounce("jane@example.com").Replace("jane", "joe", StringComparison.Ordinal);
        Assert.Equal(403, (await app.PostAsync(forged)).Status);
        Assert.Equal("data: 50", await NextAsync(app, lines, TimeSpan.FromMilliseconds(10)));
        Assert.Equal(": silence", await NextAsync(app, lines, TimeSpan.FromSeconds(1)));
    }

    [Fact]
    public async Task Only_so_many_may_follow_and_who_leaves_makes_room() {
        await using var app = await ReceiverApp.StartAsync();
        var followers = new List<StreamReader>();
        for (int i = 0; i < 32; i++) followers.Add(await FollowAsync(app));
        Assert.Equal(503, await app.StatusAsync("/live"));
        followers[0].Dispose();
        await Eventually.TrueAsync(async () => {
            using var answer = await app.Private.GetAsync("/live", HttpCompletionOption.ResponseHeadersRead, Cancellation);
            return answer.StatusCode == HttpStatusCode.OK;
        });
        foreach (var follower in followers) follower.Dispose();
    }

    [Fact]
    public async Task A_stop_does_not_wait_for_followers() {
        await using var app = await ReceiverApp.StartAsync();
        using var lines = await FollowAsync(app);
        await app.StopAsync().WaitAsync(TimeSpan.FromSeconds(8), Cancellation); // of the ten that a stop waits at most
        Assert.Null(await lines.ReadLineAsync(Cancellation));
    }

    [Theory]
    [InlineData("cross-site", 403)]
    [InlineData("same-site", 403)]
    [InlineData("same-origin", 201)]
    [InlineData("none", 201)]
    public async Task A_page_from_elsewhere_cannot_use_the_password_that_a_browser_knows(string site, int status) {
        await using var app = await ReceiverApp.StartAsync(["Api:Key=" + Key]);
        using var request = new HttpRequestMessage(HttpMethod.Put, "/suppressed/jane@example.com");
        request.Headers.Add("Sec-Fetch-Site", site);
        request.Headers.Authorization = new("Basic", Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(":" + Key)));
        Assert.Equal(status, (int)(await app.Webhook.SendAsync(request, Cancellation)).StatusCode);
    }

    [Theory]
    [InlineData("http://evil.example", 403)]
    [InlineData("https://localhost.evil.example", 403)]
    [InlineData("null", 403)]
    [InlineData("http://mail.internal:8081", 200)]
    [InlineData("https://mail.internal:8081", 200)] // through a proxy
    public async Task A_browser_that_does_not_say_from_which_site_is_known_by_Origin(string origin, int status) {
        await using var app = await ReceiverApp.StartAsync(["Api:Key=" + Key]);
        using var request = new HttpRequestMessage(HttpMethod.Post, "/suppressed?reason=complaint") { Content = new StringContent("jane@example.com\n") };
        request.Headers.Add("Origin", origin);
        request.Headers.Host = "mail.internal:8081";
        request.Headers.Authorization = new("Basic", Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(":" + Key)));
        Assert.Equal(status, (int)(await app.Webhook.SendAsync(request, Cancellation)).StatusCode);
    }

    [Fact]
    public void The_READMEs_picture_is_no_larger_than_it_may_be() {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "Program.cs"))) folder = Path.GetDirectoryName(folder)!;
        Assert.InRange(new FileInfo(Path.Combine(folder, "extras", "dashboard.png")).Length, 1, 200_000);
    }
}
