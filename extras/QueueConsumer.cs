// Drains an SQS queue: the way in where there is no public address, and for what the webhook missed while it was down.
// Each body takes the way of POST /sns (envelope, topic, signature, journal), and leaves the queue once that has an answer. What is
// refused is set down as unread first, for in the queue it is gone.
//
// Sqs:QueueUrl turns it on; Sqs:ServiceUrl is for emulators. The key comes from where the AWS SDK looks for one:
// environment, ~/.aws, the instance's role. It needs sqs:ReceiveMessage and sqs:DeleteMessage; and sqs:GetQueueAttributes, or the queue's
// length is not told.

using System.Diagnostics.Metrics;
using Amazon.Runtime;
using Amazon.SQS;
using Amazon.SQS.Model;

static partial class Extras {
    // After the store, so it is stopped before the journal is closed.
    static partial void AddQueueConsumer(WebApplicationBuilder builder) {
        builder.Services.AddSingleton<IValidateOptions<QueueOptions>, QueueOptionsValidator>()
            .AddOptions<QueueOptions>().Bind(builder.Configuration).ValidateOnStart();
        builder.Services.AddSingleton<QueueConsumer>().AddHostedService(services => services.GetRequiredService<QueueConsumer>())
            .AddSingleton<Func<Finding?>>(services => services.GetRequiredService<QueueConsumer>().Find);
    }
}

sealed partial class QueueOptions : IValidatableObject {
    [ConfigurationKeyName("Sqs:QueueUrl")] public string QueueUrl { get; set; } = "";
    [ConfigurationKeyName("Sqs:ServiceUrl")] public string ServiceUrl { get; set; } = "";
    /// <summary>Whether bare SES JSON is believed. It carries no signature, so all that vouches for it is the queue's policy.</summary>
    [ConfigurationKeyName("Sqs:AcceptRaw")] public bool AcceptRaw { get; set; }

    // Also sqs-fips, and a VPC's own endpoint. SNS delivers from standard topics to standard queues only, so no .fifo.
    [GeneratedRegex(@"\A(https://(?:[a-z0-9-]+\.)?sqs(?:-fips)?\.([a-z]+(?:-[a-z]+)+-[0-9]+)\.[a-z0-9.-]+)/[0-9]{12}/[A-Za-z0-9_-]{1,80}\z")]
    private static partial Regex Urls();

    /// <summary>The endpoint that is asked, and the region that requests are signed for.</summary>
    public (string Endpoint, string Region) Where() => Urls().Match(QueueUrl) is { Success: true } parts
        ? (ServiceUrl.Length > 0 ? ServiceUrl : parts.Groups[1].Value, parts.Groups[2].Value) : (ServiceUrl, "us-east-1");

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext) {
        if (QueueUrl.Length > 0 && ServiceUrl.Length == 0 && !Urls().IsMatch(QueueUrl))
            yield return new($"Sqs:QueueUrl '{QueueUrl}' is not "
                + "the URL of a standard queue, as https://sqs.eu-west-1.amazonaws.com/123456789012/name is");
        if (ServiceUrl.Length > 0 && !(Uri.TryCreate(ServiceUrl, UriKind.Absolute, out var at) && at.Scheme is "http" or "https"))
            yield return new($"Sqs:ServiceUrl '{ServiceUrl}' is no URL, as http://localhost:4566 is");
    }
}

[OptionsValidator] sealed partial class QueueOptionsValidator : IValidateOptions<QueueOptions>;

/// <summary>Takes messages out of the queue for as long as the receiver runs. A message is deleted when it is on disk, or when it
/// can never be right; what may mend stays, and comes again after the queue's visibility timeout.</summary>
sealed class QueueConsumer(IOptions<QueueOptions> options, Intake intake, IFeedbackStore store, TimeProvider clock,
    IMeterFactory meters, ILogger<QueueConsumer> logger) : BackgroundService {
    const int Batch = 10, AtOnce = 4, LongPoll = 20; // Batch and LongPoll are the most that SQS allows
    /// <summary>So many characters of a refused body are set down: a whole SES event, for SES cuts a mail's headers at 10 KB, and little
    /// enough that who can write into the queue cannot fill the disk with a few messages.</summary>
    const int MostSetDown = 16 << 10;
    static readonly TimeSpan ShortestPause = TimeSpan.FromSeconds(1), LongestPause = TimeSpan.FromSeconds(60), Measured = TimeSpan.FromMinutes(1);
    readonly Counter<long> _messages = meters.Create("FeedbackReceiver").CreateCounter<long>("feedback_receiver.queue.messages", "{message}",
        "Messages of the queue: deleted, or left in it to come again; failed: the queue could not be asked");
    static readonly TimeSpan Late = TimeSpan.FromMinutes(10);
    readonly Lock _leaving = new();
    readonly Dictionary<string, (DateTimeOffset Since, DateTimeOffset At, string Why)> _failing = []; // what cannot be done to the queue, likewise
    TimeSpan _pause = ShortestPause;
    long _refused;
    (DateTimeOffset Since, DateTimeOffset At, Verdict Why)? _left; // what was left in the queue, with less than _apart between
    TimeSpan _apart = Late; // twice the queue's visibility timeout, where that is longer: so rarely is one message seen
    (DateTimeOffset At, Verdict? Verdict) _logged;

    /// <summary>What the operator should hear: that the queue cannot be drained, or that messages are left in it, since when, and why. SQS's
    /// own measure of the oldest message takes no notice of one that was received three times:
    /// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html</summary>
    public Finding? Find() {
        var now = clock.GetUtcNow();
        lock (_leaving) {
            foreach (var (what, (since, at, why)) in _failing.OrderBy(each => each.Value.Since))
                if (Lasts(since, at, now)) return new("queue-unreachable", "error", $"The queue cannot be {what} since {Utc(since)}: {why}",
                    $"aws sqs get-queue-attributes --attribute-names All --queue-url {options.Value.QueueUrl}");
            return _left is not { } left || !Lasts(left.Since, left.At, now) ? null : new("queue-left", "warning",
                $"Messages are left in the queue since {Utc(left.Since)}, and lost when its retention ends: {left.Why.Why}.",
                left.Why == Verdict.RawDelivery ? "see Sqs:AcceptRaw" : "see Sns:TopicArns, Sns:MinimumSignatureVersion and the receiver's log");
        }
    }
    bool Lasts(DateTimeOffset since, DateTimeOffset at, DateTimeOffset now) => now - at <= _apart && at - since >= Late;
    static string Utc(DateTimeOffset at) => at.UtcDateTime.ToString("yyyy-MM-dd HH:mm 'UTC'", CultureInfo.InvariantCulture);
    void Leave(Verdict verdict) {
        var now = clock.GetUtcNow();
        lock (_leaving) _left = (_left is { } left && now - left.At < _apart ? left.Since : now, now, verdict);
    }
    async Task<T> AskAsync<T>(string what, Func<Task<T>> ask) {
        try {
            var answer = await ask();
            lock (_leaving) _failing.Remove(what);
            return answer;
        } catch (Exception e) {
            var now = clock.GetUtcNow();
            lock (_leaving) _failing[what] = (_failing.TryGetValue(what, out var before) && now - before.At < _apart ? before.Since : now, now, Why(e));
            throw;
        }
    }

    /// <summary>Ends only when told to stop, with what it held at that moment finished.</summary>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken) {
        if (options.Value.QueueUrl.Length == 0) return;
        logger.Draining(options.Value.QueueUrl);
        await Task.WhenAll(DrainAsync(stoppingToken), MeasureAsync(stoppingToken));
    }

    // A new client after trouble: it looks for the key again, so a corrected one is found without a restart.
    AmazonSQSClient Connect() {
        var (endpoint, region) = options.Value.Where();
        return new(new AmazonSQSConfig {
            ServiceURL = endpoint, AuthenticationRegion = region, Timeout = TimeSpan.FromSeconds(LongPoll + 10),
        });
    }

    async Task DrainAsync(CancellationToken stopping) {
        while (!stopping.IsCancellationRequested) {
            try {
                using var sqs = Connect();
                while (!stopping.IsCancellationRequested) await DrainAsync(sqs, stopping);
            } catch (Exception e) { // of any kind, for whatever escapes here would end the process
                if (stopping.IsCancellationRequested) return;
                logger.Trouble(Why(e), _pause.TotalSeconds);
                if (e is not Later) Count(1, "failed");
                await Task.Delay(_pause, clock, stopping).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                _pause = _pause * 2 < LongestPause ? _pause * 2 : LongestPause;
            }
        }
    }

    // For the gauge alone: where it may not be asked, the queue is drained all the same, and that is said once.
    async Task MeasureAsync(CancellationToken stopping) {
        int length = -1; // not known
        meters.Create("FeedbackReceiver").CreateObservableGauge("feedback_receiver.queue.length", () =>
            Volatile.Read(ref length) is >= 0 and var known ? [new(known)] : Array.Empty<Measurement<int>>(), "{message}",
            "Messages that lay in the queue a minute ago at most, nearly; without those that somebody holds");
        for (bool said = false; !stopping.IsCancellationRequested;) {
            try {
                using var sqs = Connect();
                var queue = await sqs.GetQueueAttributesAsync(options.Value.QueueUrl, ["ApproximateNumberOfMessages", "VisibilityTimeout"], stopping);
                Volatile.Write(ref length, queue.ApproximateNumberOfMessages);
                var twice = TimeSpan.FromSeconds(2 * queue.VisibilityTimeout);
                lock (_leaving) _apart = twice > Late ? twice : Late;
            } catch (Exception e) { // of any kind, as above
                if (stopping.IsCancellationRequested) return;
                Volatile.Write(ref length, -1);
                if (!said) logger.Unmeasured(Why(e));
                said = true;
            }
            await Task.Delay(Measured, clock, stopping).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    // One request waits while the queue is empty, for each one costs. Where two messages lay there may be many.
    async Task DrainAsync(AmazonSQSClient sqs, CancellationToken stopping) {
        var (came, done) = await TakeAsync(sqs, LongPoll, stopping);
        _pause = ShortestPause;
        if (done > 1) await Task.WhenAll(Enumerable.Range(0, AtOnce).Select(_ => UntilEmptyAsync()));
        // What is left comes again within a minute, and each request costs; but where ten came there may be others behind them.
        else if (came > done && came < Batch) await Task.Delay(ShortestPause, clock, stopping).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);

        async Task UntilEmptyAsync() {
            // For a second: a request that does not wait asks only some of the queue's servers, and may find nothing.
            while (!stopping.IsCancellationRequested && (await TakeAsync(sqs, seconds: 1, stopping)).Done > 0) { }
        }
    }

    // Receives once, and finishes what came: how many came, and how many are done with. Only the waiting can be cancelled.
    async Task<(int Came, int Done)> TakeAsync(AmazonSQSClient sqs, int seconds, CancellationToken stopping) {
        var request = new ReceiveMessageRequest(options.Value.QueueUrl) { MaxNumberOfMessages = Batch, WaitTimeSeconds = seconds };
        var messages = (await AskAsync("read", () => sqs.ReceiveMessageAsync(request, stopping))).Messages ?? []; // the SDK's word for none is null
        var verdicts = await Task.WhenAll(messages.Select(ReceiveAsync));
        List<DeleteMessageBatchRequestEntry> done = [.. messages.Where((_, i) => verdicts[i].Status != 503 && !MayBeWanted(verdicts[i]))
            .Select((message, i) => new DeleteMessageBatchRequestEntry($"{i}", message.ReceiptHandle))];
        // One that is not deleted comes again, and is known by its id: nothing is counted twice.
        if (done.Count > 0) await AskAsync("emptied", () => DeleteAsync(sqs, done));
        Count(done.Count, "deleted");
        Count(messages.Count - done.Count, "left");
        // Of the others that are 503 each has a reason of its own (a certificate, SHA-1), which keeps nobody else waiting.
        if (Array.Find(verdicts, verdict => verdict == Verdict.Busy || verdict == Verdict.Unwritable) is { } later) throw new Later(later.Why);
        if (Array.Find(verdicts, verdict => verdict.Status == 503 || MayBeWanted(verdict)) is { } left) Leave(left);
        return (messages.Count, done.Count);
    }

    async Task<int> DeleteAsync(AmazonSQSClient sqs, List<DeleteMessageBatchRequestEntry> done) =>
        (await sqs.DeleteMessageBatchAsync(options.Value.QueueUrl, done, CancellationToken.None)).Failed is [var failed, ..]
            ? throw new AmazonSQSException($"{failed.Code}: a message cannot be deleted") : done.Count;

    void Count(int messages, string outcome) {
        if (messages > 0) _messages.Add(messages, new KeyValuePair<string, object?>("outcome", outcome));
    }

    // A topic or a version that is not allowed, or raw message delivery, may be a wrong setting: such messages are not thrown away.
    static bool MayBeWanted(Verdict verdict) => verdict == Verdict.UnknownTopic || verdict == Verdict.UnsupportedVersion || verdict == Verdict.RawDelivery;

    async Task<Verdict> ReceiveAsync(Message message) {
        var verdict = await JudgeAsync(message.Body);
        if (verdict.Status is < 400 or >= 500) return verdict;
        if (!MayBeWanted(verdict)) {
            var commit = await store.CommitAsync(new(clock.GetUtcNow(), Refused: new(verdict.Why, Cut(message.Body))));
            if (commit != Commit.Kept) return commit == Commit.Busy ? Verdict.Busy : Verdict.Unwritable;
        }
        long count = Interlocked.Increment(ref _refused);
        lock (_leaving) { // once in ten seconds at most: what is left comes again and again
            if (verdict == _logged.Verdict && clock.GetUtcNow() - _logged.At < TimeSpan.FromSeconds(10)) return verdict;
            _logged = (clock.GetUtcNow(), verdict);
        }
        logger.Refused(message.MessageId, verdict.Status, verdict.Why, count);
        return verdict;
    }

    async Task<Verdict> JudgeAsync(string body) {
        byte[] utf8 = Encoding.UTF8.GetBytes(body);
        if (Envelope.Read(new(utf8), out var envelope) is not { } refusal)
            return await intake.ReceiveAsync(envelope!, CancellationToken.None);
        bool isRaw = refusal == Verdict.RawDelivery || refusal == Verdict.Malformed;
        if (options.Value.AcceptRaw && isRaw && FromRaw(body, utf8) is { } raw) return await intake.KeepAsync(raw);
        return intake.Refuse(options.Value.AcceptRaw && isRaw ? Verdict.Malformed : refusal);
    }

    // An envelope for what SES said without one: raw message delivery. Its id is its content's, so that a redelivery counts once, an Open
    // or a Click too (the same by webhook counts again, under SNS's id). It names the queue in place of a topic, since nobody signed
    // which topic it came from. Null when SES did not say it.
    Envelope? FromRaw(string body, byte[] utf8) {
        var envelope = new Envelope(Envelope.Notification, "raw:" + Convert.ToHexStringLower(SHA256.HashData(utf8)),
            options.Value.QueueUrl, body, clock.GetUtcNow().ToString("O"), SignatureVersion: "", Signature: "", SigningCertURL: "");
        try {
            using var document = JsonDocument.Parse(body);
            return (document.RootElement.Text("eventType") ?? document.RootElement.Text("notificationType")) is null ? null : envelope;
        } catch (Exception e) when (e is JsonException or InvalidOperationException) { // the latter: half an emoji where the kind should be
            return SesEvent.Read(envelope).Validates ? envelope : null;
        }
    }

    // Not between the halves of a character.
    static string Cut(string body) => body.Length <= MostSetDown ? body
        : body[..(char.IsHighSurrogate(body[MostSetDown - 1]) ? MostSetDown - 1 : MostSetDown)];

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
    [LoggerMessage(104, Warning, "The queue's length is not known: {Why}")]
    public static partial void Unmeasured(this ILogger logger, string why);
    [LoggerMessage(103, Warning, "SQS message {Id} is refused with {Status}, {Why}: {Count} so far")]
    public static partial void Refused(this ILogger logger, string id, int status, string why, long count);
}
