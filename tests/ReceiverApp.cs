using System.Diagnostics;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Time.Testing;

/// <summary>A whole receiver with a folder of its own: real Kestrel on two free ports, a real LiteDB file, a clock that
/// stands still, and a <see cref="FakeSns"/> in place of the world.</summary>
sealed class ReceiverApp : IAsyncDisposable {
    readonly WebApplication _app;

    ReceiverApp(WebApplication app, FakeSns sns, FakeTimeProvider clock, string folder, CollectedLog log) =>
        (_app, Sns, Clock, Folder, Log) = (app, sns, clock, folder, log);

    public FakeSns Sns { get; }
    public FakeTimeProvider Clock { get; }
    public string Folder { get; }
    public CollectedLog Log { get; }
    public string JournalFolder => Path.Combine(Folder, "journal");
    public string FeedbackDb => Path.Combine(Folder, "feedback.db");
    public HttpClient Webhook { get; private set; } = null!;
    public HttpClient Private { get; private set; } = null!;
    public IServiceProvider Services => _app.Services;

    /// <summary>Starts a receiver. Settings are `Name:Part=value`; the last one given wins.</summary>
    public static async Task<ReceiverApp> StartAsync(string[]? settings = null, string? folder = null, FakeSns? sns = null,
        Action<WebApplicationBuilder>? with = null, Disk? disk = null) {
        folder ??= Directory.CreateTempSubdirectory("receiver-").FullName;
        sns ??= new FakeSns();
        var clock = new FakeTimeProvider(new DateTimeOffset(2026, 11, 24, 8, 0, 0, TimeSpan.Zero));
        var log = new CollectedLog();
        string[] args =
        [
            "--Sns:TopicArns:0=" + FakeSns.TopicArn, "--Sns:CertificateDirectory=" + Path.Combine(folder, "certificates"),
            "--Journal:Directory=" + Path.Combine(folder, "journal"), "--ConnectionStrings:Feedback=Filename=" + Path.Combine(folder, "feedback.db"),
            "--Kestrel:Endpoints:Webhook:Url=http://127.0.0.1:0", "--Kestrel:Endpoints:Private:Url=http://127.0.0.1:0",
            .. (settings ?? []).Select(setting => "--" + setting),
        ];
        var app = Receiver.Build(args, builder => {
            builder.Logging.ClearProviders().AddProvider(log);
            builder.Services.AddSingleton<TimeProvider>(clock);
            builder.Services.AddSingleton(new HttpClient(sns) { MaxResponseContentBufferSize = 64 << 10 });
            builder.Services.AddSingleton(disk ?? new Disk());
            with?.Invoke(builder);
        });
        var receiver = new ReceiverApp(app, sns, clock, folder, log);
        await app.StartAsync();
        // Kestrel lists the addresses in the order of its configuration, which is by name: Private, Webhook.
        string[] urls = [.. app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses];
        receiver.Private = ClientOf(urls[0]);
        receiver.Webhook = ClientOf(urls[1]);
        return receiver;
    }

    // A body that waits for "100 Continue" is not sent all the same after a second.
    static HttpClient ClientOf(string url) => new(new SocketsHttpHandler { Expect100ContinueTimeout = TimeSpan.FromMinutes(1) }) { BaseAddress = new Uri(url) };

    /// <summary>Posts a body to /sns as SNS does: text/plain. Returns the status and the line.</summary>
    public async Task<(int Status, string Line)> PostAsync(string body) {
        using var content = new StringContent(body);
        using var response = await Webhook.PostAsync("/sns", content, TestContext.Current.CancellationToken);
        return ((int)response.StatusCode, (await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)).TrimEnd());
    }

    /// <summary>GET on the private listener: status and JSON.</summary>
    public async Task<(int Status, JsonElement Json)> GetAsync(string path) {
        using var response = await Private.GetAsync(path, TestContext.Current.CancellationToken);
        return ((int)response.StatusCode, JsonElement.Parse(await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)));
    }

    public async Task<int> StatusAsync(string path) => (await GetAsync(path)).Status;

    /// <summary>The events of an address, once all of them are there.</summary>
    public async Task<JsonElement[]> HistoryAsync(string address) => [.. (await WholeHistoryAsync(address)).GetProperty("events").EnumerateArray()];

    /// <summary>What GET /history answers once it is complete: on LiteDB it follows the 200.</summary>
    public async Task<JsonElement> WholeHistoryAsync(string address) {
        var (status, json) = (0, default(JsonElement));
        await Eventually.TrueAsync(async () => {
            (status, json) = await GetAsync("/history/" + address);
            return status == 200 && json.GetProperty("complete").GetBoolean();
        });
        return json;
    }

    /// <summary>Ends once everything that was acknowledged can be listed and counted.</summary>
    public Task CaughtUpAsync(int seconds = 30) => Eventually.TrueAsync(Services.GetRequiredService<IFeedbackStore>().CaughtUpAsync, seconds);

    public Task StopAsync() => _app.StopAsync();

    /// <summary>Stops the receiver. The folder goes with <see cref="TemporaryFiles"/>.</summary>
    public async ValueTask DisposeAsync() {
        await _app.StopAsync();
        await _app.DisposeAsync();
        Webhook?.Dispose();
        Private?.Dispose();
    }
}

/// <summary>Whatever the tests leave lies in one folder, which goes when they end.</summary>
static class TemporaryFiles {
    [System.Runtime.CompilerServices.ModuleInitializer]
    internal static void Gather() {
        var folder = Directory.CreateTempSubdirectory("receiver-tests-");
        if (!OperatingSystem.IsWindows()) folder.UnixFileMode = (UnixFileMode)0b1_111_111_111; // as /tmp is: PostgreSQL runs as another user
        Environment.SetEnvironmentVariable("TMPDIR", folder.FullName);
        // By a process of its own: on a slow disk this takes longer than xunit gives a test process to end.
        AppDomain.CurrentDomain.ProcessExit += (_, _) => {
            if (OperatingSystem.IsWindows()) folder.Delete(recursive: true);
            else Process.Start(new ProcessStartInfo("rm", ["-rf", folder.FullName]) { RedirectStandardOutput = true, RedirectStandardError = true });
        };
    }
}

static class Finalizers {
    // As Program.cs does: see Receiver.IsNoReasonToEnd.
    [System.Runtime.CompilerServices.ModuleInitializer]
    internal static void Heed() =>
        System.Runtime.ExceptionServices.ExceptionHandling.SetUnhandledExceptionHandler(Receiver.IsNoReasonToEnd);
}

/// <summary>Everything that was logged, as text.</summary>
sealed class CollectedLog : ILoggerProvider, ILogger {
    readonly System.Collections.Concurrent.ConcurrentQueue<string> _lines = [];

    public string Text => string.Join("\n", _lines);
    public ILogger CreateLogger(string categoryName) => this;
    public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;
    public bool IsEnabled(LogLevel logLevel) => true;
    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
        _lines.Enqueue($"{logLevel}: {formatter(state, exception)} {exception}");
    public void Dispose() { }
}
