// Drains an SQS queue: the way in where there is no public address, and for what the webhook missed while it was down.
// Each body takes the way of POST /sns (envelope, topic, signature, journal), and leaves the queue once that has an answer.
//
// Sqs:QueueUrl turns it on; Sqs:ServiceUrl is for emulators. The key comes from where the AWS SDK looks for one:
// environment, ~/.aws, the instance's role. It needs sqs:ReceiveMessage and sqs:DeleteMessage.

using Amazon.Runtime;
using Amazon.SQS;
using Amazon.SQS.Model;

static partial class Extras {
    // After the store, so it is stopped before the journal is closed.
    static partial void AddQueueConsumer(WebApplicationBuilder builder) {
        if (QueueAddress.From(builder.Configuration) is not { } address) return;
        builder.Services.AddSingleton(address).AddHostedService<QueueConsumer>();
    }
}

/// <summary>Where the queue is: its URL, the endpoint that is asked, and the region that requests are signed for.</summary>
sealed partial record QueueAddress(string Url, string Endpoint, string Region) {
    // Also sqs-fips, and a VPC's own endpoint. SNS delivers from standard topics to standard queues only, so no .fifo.
    [GeneratedRegex(@"\A(https://(?:[a-z0-9-]+\.)?sqs(?:-fips)?\.([a-z]+(?:-[a-z]+)+-[0-9]+)\.[a-z.]+)/[0-9]{12}/[A-Za-z0-9_-]{1,80}\z")]
    static partial Regex Urls { get; }

    /// <summary>Null when no queue is set.</summary>
    public static QueueAddress? From(IConfiguration configuration) {
        var (url, service) = (configuration["Sqs:QueueUrl"], configuration["Sqs:ServiceUrl"]);
        if (string.IsNullOrEmpty(url)) return null;
        var parts = Urls.Match(url);
        if (string.IsNullOrEmpty(service)) {
            return parts.Success ? new(url, parts.Groups[1].Value, parts.Groups[2].Value) : throw new Refusal(
                $"Sqs:QueueUrl '{url}' is not the URL of a standard queue, as https://sqs.eu-west-1.amazonaws.com/123456789012/name is");
        }
        return Uri.TryCreate(service, UriKind.Absolute, out var at) && at.Scheme is "http" or "https"
            ? new(url, service, parts.Success ? parts.Groups[2].Value : "us-east-1")
            : throw new Refusal($"Sqs:ServiceUrl '{service}' is no URL, as http://localhost:4566 is");
    }
}

/// <summary>Takes messages out of the queue for as long as the receiver runs. A message is deleted when it is on disk, or when it
/// can never be right; what may mend stays, and comes again after the queue's visibility timeout.</summary>
sealed class QueueConsumer(QueueAddress queue, Intake intake, TimeProvider clock, ILogger<QueueConsumer> logger) : BackgroundService {
    const int Batch = 10, AtOnce = 4, LongPoll = 20; // Batch and LongPoll are the most that SQS allows
    static readonly TimeSpan ShortestPause = TimeSpan.FromSeconds(1), LongestPause = TimeSpan.FromSeconds(60);
    TimeSpan _pause = ShortestPause;
    long _refused;

    /// <summary>Ends only when told to stop, with what it held at that moment finished.</summary>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken) {
        logger.Draining(queue.Url);
        while (!stoppingToken.IsCancellationRequested) {
            try {
                // A new client after trouble: it looks for the key again, so a corrected one is found without a restart.
                using var sqs = new AmazonSQSClient(new AmazonSQSConfig {
                    ServiceURL = queue.Endpoint, AuthenticationRegion = queue.Region, Timeout = TimeSpan.FromSeconds(LongPoll + 10),
                });
                while (!stoppingToken.IsCancellationRequested) await DrainAsync(sqs, stoppingToken);
            } catch (Exception e) { // of any kind, for whatever escapes here would end the process
                if (stoppingToken.IsCancellationRequested) return;
                logger.Trouble(Why(e), _pause.TotalSeconds);
                await Task.Delay(_pause, clock, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                _pause = _pause * 2 < LongestPause ? _pause * 2 : LongestPause;
            }
        }
    }

    // One request waits while the queue is empty, for each one costs. Where two messages lay there may be many.
    async Task DrainAsync(AmazonSQSClient sqs, CancellationToken stopping) {
        int taken = await TakeAsync(sqs, LongPoll, stopping);
        _pause = ShortestPause;
        if (taken > 1) await Task.WhenAll(Enumerable.Range(0, AtOnce).Select(_ => UntilEmptyAsync()));

        async Task UntilEmptyAsync() {
            // For a second: a request that does not wait asks only some of the queue's servers, and may find nothing.
            while (!stopping.IsCancellationRequested && await TakeAsync(sqs, seconds: 1, stopping) > 0) { }
        }
    }

    // Receives once, and finishes what came: how many. Only the waiting can be cancelled.
    async Task<int> TakeAsync(AmazonSQSClient sqs, int seconds, CancellationToken stopping) {
        var request = new ReceiveMessageRequest(queue.Url) { MaxNumberOfMessages = Batch, WaitTimeSeconds = seconds };
        var messages = (await sqs.ReceiveMessageAsync(request, stopping)).Messages ?? []; // the SDK's word for none is null
        var verdicts = await Task.WhenAll(messages.Select(ReceiveAsync));
        // A topic or a version that is not allowed may be a wrong setting: such messages are not thrown away.
        List<DeleteMessageBatchRequestEntry> done = [.. messages.Where((_, i) => verdicts[i].Status != 503
            && verdicts[i] != Verdict.UnknownTopic && verdicts[i] != Verdict.UnsupportedVersion)
            .Select((message, i) => new DeleteMessageBatchRequestEntry($"{i}", message.ReceiptHandle))];
        // One that is not deleted comes again, and is known by its id: nothing is counted twice.
        if (done.Count > 0 && (await sqs.DeleteMessageBatchAsync(queue.Url, done, CancellationToken.None)).Failed is [var failed, ..])
            throw new AmazonSQSException($"{failed.Code}: a message cannot be deleted");
        return Array.Find(verdicts, verdict => verdict.Status == 503) is { } later ? throw new Later(later.Why) : messages.Count;
    }

    async Task<Verdict> ReceiveAsync(Message message) {
        var verdict = Envelope.Read(new(Encoding.UTF8.GetBytes(message.Body)), out var envelope)
            ?? await intake.ReceiveAsync(envelope!, CancellationToken.None);
        if (verdict.Status is >= 400 and < 500)
            logger.Refused(message.MessageId, verdict.Status, verdict.Why, Interlocked.Increment(ref _refused));
        return verdict;
    }

    // The first line: after a wrong signature, AWS goes on with the whole request, and a session's token is part of that.
    static string Why(Exception e) {
        string line = e.Message.AsSpan().Trim().ToString().Split('\n')[0].Trim();
        return e is AmazonServiceException { ErrorCode: { Length: > 0 } code } && code != line ? $"{code}: {line}" : line;
    }

    sealed class Later(string why) : Exception(why + "; such messages stay in the queue");
}

static partial class QueueLog {
    [LoggerMessage(101, Information, "Draining {Queue}")] public static partial void Draining(this ILogger logger, string queue);
    [LoggerMessage(102, Warning, "The queue is asked again in {Seconds} s: {Why}")]
    public static partial void Trouble(this ILogger logger, string why, double seconds);
    [LoggerMessage(103, Warning, "SQS message {Id} is refused with {Status}, {Why}: {Count} so far")]
    public static partial void Refused(this ILogger logger, string id, int status, string why, long count);
}
