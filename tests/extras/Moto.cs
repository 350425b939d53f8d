using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Xml.Linq;
using Amazon.SQS;
using Amazon.SQS.Model;

/// <summary>moto_server, an AWS on this machine, as a process of its own. IsThere tells whether it is on PATH.</summary>
public class Moto : IAsyncLifetime {
    static readonly string? Executable = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)
        .Select(folder => Path.Combine(folder, "moto_server")).FirstOrDefault(File.Exists);
    readonly HttpClient _http = new();
    Process? _process;
    AmazonSQSClient _sqs = null!;

    public static bool IsThere => Executable is not null;
    public string Url { get; } = $"http://127.0.0.1:{FreePort()}";

    /// <summary>Below those that connections get of the system: one of these could have it before the server does.</summary>
    public static int FreePort() {
        for (; ; )
            try {
                using var listener = new TcpListener(IPAddress.Loopback, Random.Shared.Next(10_000, 32_768));
                listener.Start();
                return ((IPEndPoint)listener.LocalEndpoint).Port;
            } catch (SocketException) { } // somebody listens there
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
        start.Environment["INITIAL_NO_AUTH_ACTION_COUNT"] = "1000000"; // asks nobody for a key until EnforceAsync
        _process = Process.Start(start)!;
        _process.OutputDataReceived += (_, _) => { };
        _process.ErrorDataReceived += (_, _) => { };
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        using var http = new HttpClient { BaseAddress = new Uri(Url) };
        await Eventually.TrueAsync(async () => {
            try { return (await http.GetAsync("/moto-api/")).IsSuccessStatusCode; } catch (HttpRequestException) { return false; }
        });
        _sqs = new AmazonSQSClient(new AmazonSQSConfig { ServiceURL = Url, AuthenticationRegion = "us-east-1" });
    }

    /// <summary>A new queue. What is received and not deleted is there again after so many seconds.</summary>
    public async Task<string> CreateQueueAsync(string visibilityTimeout = "1") => (await _sqs.CreateQueueAsync(new CreateQueueRequest($"q-{Guid.NewGuid():N}") {
        Attributes = new() { ["VisibilityTimeout"] = visibilityTimeout },
    })).QueueUrl;

    public async Task SendAsync(string queue, params IEnumerable<string> bodies) {
        foreach (string[] batch in bodies.Chunk(10))
            await _sqs.SendMessageBatchAsync(queue, [.. batch.Select((body, i) => new SendMessageBatchRequestEntry($"{i}", body))]);
    }

    /// <summary>How many lie in the queue, those included that somebody holds just now.</summary>
    public async Task<int> CountAsync(string queue) {
        // moto counts those that can be seen, then those that cannot, and misses one that comes to light between: so none is asked again.
        return await CountOnceAsync() is > 0 and var count ? count : await CountOnceAsync();

        async Task<int> CountOnceAsync() {
            var counts = await _sqs.GetQueueAttributesAsync(queue, ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]);
            return counts.ApproximateNumberOfMessages + counts.ApproximateNumberOfMessagesNotVisible;
        }
    }

    /// <summary>Takes what lies in the queue out of it. Nothing else may take from it meanwhile.</summary>
    public async Task<List<string>> TakeAsync(string queue) {
        var bodies = new List<string>();
        while (await _sqs.ReceiveMessageAsync(new ReceiveMessageRequest(queue) { MaxNumberOfMessages = 10, VisibilityTimeout = 300 })
            is { Messages: { Count: > 0 } messages }) {
            bodies.AddRange(messages.Select(message => message.Body));
            await _sqs.DeleteMessageBatchAsync(queue,
                [.. messages.Select((message, i) => new DeleteMessageBatchRequestEntry($"{i}", message.ReceiptHandle))]);
        }
        return bodies;
    }

    /// <summary>A call in the form that SNS and IAM take, with no signature to speak of. Returns what the named element of the answer holds.</summary>
    public async Task<string> CallAsync(string service, string element, params (string Name, string Value)[] parameters) =>
        Element(await AskAsync(service, parameters), element);

    static string Element(XDocument answer, string name) => answer.Descendants().First(each => each.Name.LocalName == name).Value;

    async Task<XDocument> AskAsync(string service, (string Name, string Value)[] parameters) {
        using var request = new HttpRequestMessage(HttpMethod.Post, Url) {
            Content = new FormUrlEncodedContent(parameters.Select(each => KeyValuePair.Create(each.Name, each.Value))),
        };
        return XDocument.Parse(await SendAsync(request, service));
    }

    /// <summary>A user of IAM who may do what the policy says, and the key.</summary>
    public async Task<(string Id, string Secret)> CreateUserAsync(string policy) {
        string name = $"user-{Guid.NewGuid():N}";
        await CallAsync("iam", "UserName", ("Action", "CreateUser"), ("UserName", name));
        await CallAsync("iam", "RequestId", ("Action", "PutUserPolicy"), ("UserName", name), ("PolicyName", "policy"), ("PolicyDocument", policy));
        var answer = await AskAsync("iam", [("Action", "CreateAccessKey"), ("UserName", name)]);
        return (Element(answer, "AccessKeyId"), Element(answer, "SecretAccessKey"));
    }

    /// <summary>Makes the topic that receivers under test believe, and subscribes an endpoint.</summary>
    public async Task SubscribeAsync(string protocol, string endpoint, bool raw = false) {
        Assert.Equal(FakeSns.TopicArn, await CallAsync("sns", "TopicArn", ("Action", "CreateTopic"), ("Name", "email-feedback")));
        string subscription = await CallAsync("sns", "SubscriptionArn", ("Action", "Subscribe"), ("TopicArn", FakeSns.TopicArn),
            ("Protocol", protocol), ("Endpoint", endpoint));
        if (raw) await CallAsync("sns", "RequestId", ("Action", "SetSubscriptionAttributes"), ("SubscriptionArn", subscription),
            ("AttributeName", "RawMessageDelivery"), ("AttributeValue", "true"));
    }

    public async Task DeleteTopicAsync() => await CallAsync("sns", "RequestId", ("Action", "DeleteTopic"), ("TopicArn", FakeSns.TopicArn));

    /// <summary>Without a Subject, for moto leaves it out of what it signs.</summary>
    public Task<string> PublishAsync(string message) =>
        CallAsync("sns", "MessageId", ("Action", "Publish"), ("TopicArn", FakeSns.TopicArn), ("Message", message));

    /// <summary>The certificate of one message: moto signs each with another, and serves it where no AWS would ask for a key.</summary>
    public async Task<string> CertificateAsync(string name) {
        using var request = new HttpRequestMessage(HttpMethod.Get, Url + "/" + name);
        return await SendAsync(request, "sns");
    }

    async Task<string> SendAsync(HttpRequestMessage request, string service) {
        request.Headers.TryAddWithoutValidation("Authorization",
            $"AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=x");
        using var response = await _http.SendAsync(request, TestContext.Current.CancellationToken);
        string text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        Assert.True(response.IsSuccessStatusCode, text);
        return text;
    }

    /// <summary>From now on keys and permissions count; or no longer.</summary>
    public async Task EnforceAsync(bool enforce) {
        using var count = new StringContent(enforce ? "0" : "1000000");
        (await _http.PostAsync(Url + "/moto-api/reset-auth", count, TestContext.Current.CancellationToken)).EnsureSuccessStatusCode();
    }

    public async ValueTask DisposeAsync() {
        GC.SuppressFinalize(this);
        _http.Dispose();
        if (_process is null) return;
        _process.Kill(entireProcessTree: true);
        await _process.WaitForExitAsync();
        _process.Dispose();
        _sqs?.Dispose();
    }
}
