using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Amazon.SQS;
using Amazon.SQS.Model;

/// <summary>moto_server, an SQS on this machine, as a process of its own. IsThere tells whether it is on PATH.</summary>
public sealed class Moto : IAsyncLifetime {
    static readonly string? Executable = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)
        .Select(folder => Path.Combine(folder, "moto_server")).FirstOrDefault(File.Exists);
    Process? _process;
    AmazonSQSClient _sqs = null!;

    public static bool IsThere => Executable is not null;
    public string Url { get; } = $"http://127.0.0.1:{FreePort()}";

    public static int FreePort() {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    public async ValueTask InitializeAsync() {
        if (!IsThere) return;
        // Where the SDK looks first, in the receiver and here.
        Environment.SetEnvironmentVariable("AWS_ACCESS_KEY_ID", "test");
        Environment.SetEnvironmentVariable("AWS_SECRET_ACCESS_KEY", "test");
        var start = new ProcessStartInfo(Executable!, ["-H", "127.0.0.1", "-p", new Uri(Url).Port.ToString(System.Globalization.CultureInfo.InvariantCulture)]) {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        _process = Process.Start(start)!;
        _process.OutputDataReceived += (_, _) => { };
        _process.ErrorDataReceived += (_, _) => { };
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        using var http = new HttpClient { BaseAddress = new Uri(Url) };
        await Until.TrueAsync(async () => {
            try { return (await http.GetAsync("/moto-api/")).IsSuccessStatusCode; } catch (HttpRequestException) { return false; }
        });
        _sqs = new AmazonSQSClient(new AmazonSQSConfig { ServiceURL = Url, AuthenticationRegion = "us-east-1" });
    }

    /// <summary>A new queue. What is received and not deleted is there again after a second.</summary>
    public async Task<string> CreateQueueAsync() => (await _sqs.CreateQueueAsync(new CreateQueueRequest($"q-{Guid.NewGuid():N}") {
        Attributes = new() { ["VisibilityTimeout"] = "1" },
    })).QueueUrl;

    public Task SendAsync(string queue, string body) => _sqs.SendMessageAsync(queue, body);

    /// <summary>How many lie in the queue, those included that somebody holds just now.</summary>
    public async Task<int> CountAsync(string queue) {
        var counts = await _sqs.GetQueueAttributesAsync(queue, ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]);
        return counts.ApproximateNumberOfMessages + counts.ApproximateNumberOfMessagesNotVisible;
    }

    public async ValueTask DisposeAsync() {
        if (_process is null) return;
        _process.Kill(entireProcessTree: true);
        await _process.WaitForExitAsync();
        _process.Dispose();
        _sqs?.Dispose();
    }
}

static class Until {
    /// <summary>Asks until it is so, for half a minute at most.</summary>
    public static async Task TrueAsync(Func<Task<bool>> condition) {
        for (var patience = Stopwatch.StartNew(); !await condition(); await Task.Delay(20, TestContext.Current.CancellationToken))
            Assert.True(patience.Elapsed < TimeSpan.FromSeconds(30), "it is not so after 30 s");
    }

    public static Task TrueAsync(Func<bool> condition) => TrueAsync(() => Task.FromResult(condition()));
}
