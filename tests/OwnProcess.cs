using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Text.RegularExpressions;

/// <summary>The receiver as a process of its own, to be killed. It is FeedbackReceiver.dll beside the tests, or the
/// executable that the environment variable FEEDBACK_RECEIVER names.</summary>
sealed partial class OwnProcess : IDisposable {
    readonly Process _process;
    readonly TaskCompletionSource _listening = new(TaskCreationOptions.RunContinuationsAsynchronously);
    readonly ConcurrentQueue<string> _output = [];
    readonly List<string> _urls = [];

    OwnProcess(Process process) => _process = process;

    /// <summary>64 connections to each listener.</summary>
    public HttpClient Webhook { get; private set; } = null!;
    public HttpClient Private { get; private set; } = null!;

    public bool HasEnded => _process.HasExited;

    /// <summary>Everything that it wrote so far.</summary>
    public string Output => string.Join("\n", _output);

    /// <summary>Starts a receiver in a folder. More of its environment is `NAME=value`.</summary>
    public static Task<OwnProcess> StartAsync(string folder, params string[] environment) =>
        StartFromAsync(AppContext.BaseDirectory, folder, environment);
    /// <summary>The same, with FeedbackReceiver.dll from elsewhere.</summary>
    public static async Task<OwnProcess> StartFromAsync(string program, string folder, params string[] environment) {
        string dll = Path.Combine(program, "FeedbackReceiver.dll");
        string? executable = Environment.GetEnvironmentVariable("FEEDBACK_RECEIVER");
        var start = new ProcessStartInfo(executable ?? "dotnet", executable is null ? [dll] : []) {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = folder,
        };
        start.Environment["Sns__TopicArns__0"] = FakeSns.TopicArn;
        start.Environment["Sns__CertificateDirectory"] = Path.Combine(folder, "certificates");
        start.Environment["Journal__Directory"] = Path.Combine(folder, "journal");
        start.Environment["ConnectionStrings__Feedback"] = "Filename=" + Path.Combine(folder, "feedback.db");
        start.Environment["Kestrel__Endpoints__Webhook__Url"] = "http://127.0.0.1:0";
        start.Environment["Kestrel__Endpoints__Private__Url"] = "http://127.0.0.1:0";
        foreach (string variable in environment) start.Environment[variable.Split('=', 2)[0]] = variable.Split('=', 2)[1];
        var receiver = new OwnProcess(new Process { StartInfo = start });
        await receiver.ListenAsync();
        return receiver;
    }

    async Task ListenAsync() {
        _process.OutputDataReceived += (_, line) => Read(line.Data ?? "");
        _process.ErrorDataReceived += (_, line) => Read(line.Data ?? "");
        _process.Start();
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        var ended = _process.WaitForExitAsync(TestContext.Current.CancellationToken);
        var first = await Task.WhenAny(_listening.Task, ended).WaitAsync(TimeSpan.FromSeconds(60));
        Assert.True(first == _listening.Task, "the receiver ended at once:\n" + string.Join("\n", _output));
        (Private, Webhook) = (ClientOf(_urls[0]), ClientOf(_urls[1]));
    }

    // The addresses come in the order of their names: Private, Webhook.
    void Read(string line) {
        _output.Enqueue(line);
        if (Listening().Match(line) is not { Success: true } match) return;
        _urls.Add(match.Groups[1].Value);
        if (_urls.Count == 2) _listening.SetResult();
    }

    static HttpClient ClientOf(string url) => new(new SocketsHttpHandler { MaxConnectionsPerServer = 64 }) {
        BaseAddress = new Uri(url),
        Timeout = TimeSpan.FromSeconds(30),
    };

    /// <summary>Posts a message. False: there was no 200.</summary>
    public async Task<bool> PostAsync(string body) {
        using var content = new StringContent(body);
        try {
            using var response = await Webhook.PostAsync("/sns", content, TestContext.Current.CancellationToken);
            return response.StatusCode == HttpStatusCode.OK;
        } catch (Exception e) when (e is HttpRequestException or TaskCanceledException) { return false; }
    }

    /// <summary>SIGKILL.</summary>
    public async Task KillAsync() {
        _process.Kill();
        await _process.WaitForExitAsync(TestContext.Current.CancellationToken);
    }

    /// <summary>SIGTERM, and a clean end.</summary>
    public async Task StopAsync() {
        using var kill = Process.Start("kill", ["-TERM", $"{_process.Id}"]);
        await _process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.Equal(0, _process.ExitCode);
    }

    public void Dispose() {
        try { _process.Kill(); } catch (InvalidOperationException) { } // it has ended, or never began
        _process.Dispose();
        Webhook?.Dispose();
        Private?.Dispose();
    }

    [GeneratedRegex(@"Now listening on: (\S+)")]
    private static partial Regex Listening();
}
