// GET /metrics for Prometheus, on the private side; and OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set, as its other variables say:
// https://opentelemetry.io/docs/specs/otel/protocol/exporter. README.md lists every metric.
//
// Counted as it happens: messages and flushes. What only the store knows is asked for every half minute, not at each scrape.

using System.Diagnostics.Metrics;
using Microsoft.Extensions.Diagnostics.Metrics;
using OpenTelemetry.Metrics;

static partial class Extras {
    static partial void AddMetrics(WebApplicationBuilder builder) {
        builder.Services.AddHostedService<ReceiverMetrics>().AddOpenTelemetry().WithMetrics(metrics => {
            metrics.AddPrometheusExporter(exporter => exporter.ScopeInfoEnabled = exporter.TargetInfoEnabled = false);
            if (!string.IsNullOrEmpty(builder.Configuration["OTEL_EXPORTER_OTLP_ENDPOINT"])) metrics.AddOtlpExporter();
        });
        // This receiver's own instruments, and not those of another one in the same process. Any extra may add some.
        builder.Services.AddMetrics(metrics => metrics.EnableMetrics("FeedbackReceiver", null, "OpenTelemetry", MeterScope.Local));
    }

    static partial void MapMetrics(WebApplication app) => app.MapPrometheusScrapingEndpoint("/metrics")
        .WithSummary("GET /metrics: for Prometheus.");
}

/// <summary>The receiver's instruments. What is not known now is not there, rather than 0.</summary>
sealed class ReceiverMetrics : BackgroundService {
    static readonly TimeSpan Interval = TimeSpan.FromSeconds(30);
    /// <summary>What the label `verdict` says.</summary>
    public static readonly FrozenDictionary<Verdict, string> Names = new Dictionary<Verdict, string> {
        [Verdict.Kept] = "kept", [Verdict.Confirmed] = "confirmed", [Verdict.Unread] = "unread", [Verdict.Malformed] = "malformed",
        [Verdict.RawDelivery] = "raw_delivery",
        [Verdict.UnknownType] = "unknown_type", [Verdict.ControlCharacter] = "control_character", [Verdict.UnknownTopic] = "unknown_topic",
        [Verdict.UntrustedCertificateUrl] = "untrusted_certificate_url", [Verdict.UnsupportedVersion] = "unsupported_version",
        [Verdict.UnusableCertificate] = "unusable_certificate", [Verdict.BadSignature] = "bad_signature", [Verdict.TooLarge] = "too_large",
        [Verdict.CertificateUnavailable] = "certificate_unavailable", [Verdict.Sha1Forbidden] = "sha1_forbidden",
        [Verdict.NotConfirmed] = "not_confirmed", [Verdict.Busy] = "busy", [Verdict.Unwritable] = "unwritable",
        [Verdict.Incomplete] = "incomplete",
    }.ToFrozenDictionary();

    /// <summary>What the store knew when it was last asked.</summary>
    sealed record Seen(StoreState State, IReadOnlyList<Count> Counts, Rates Day, Rates Week);
    readonly IFeedbackStore _store;
    readonly TimeProvider _clock;
    volatile Seen? _seen;
    readonly Dictionary<(string, string), (long Stored, long Forgotten)> _counted = [];

    public ReceiverMetrics(Intake intake, IFeedbackStore store, SigningCertificates certificates, Disk disk, TimeProvider clock,
        IMeterFactory meters, IServiceProvider services) {
        (_store, _clock) = (store, clock);
        var meter = meters.Create("FeedbackReceiver");
        var messages = meter.CreateCounter<long>("feedback_receiver.messages", "{message}", "What was posted to /sns or came by the queue, by its "
            + "SNS type, and what SNS was told");
        intake.Answered += (verdict, envelope) => messages.Add(1, new KeyValuePair<string, object?>("type", envelope?.Type ?? "none"),
            new KeyValuePair<string, object?>("verdict", Names.GetValueOrDefault(verdict, "other")),
            new KeyValuePair<string, object?>("status", verdict.Status));
        AddStore(meter);
        meter.CreateObservableGauge("feedback_receiver.certificate.expiry.timestamp", () => certificates.LastEnd is { } end
            ? [new Measurement<long>(end.ToUnixTimeSeconds())] : Array.Empty<Measurement<long>>(), "s",
            "When the last of the signing certificates that were used since the start ends, in Unix time");
        if (store is LiteDbStore) AddJournal(meter, services.GetRequiredService<Journal>(), disk); // else none may be opened
    }

    static void AddJournal(Meter meter, Journal journal, Disk disk) {
        var duration = meter.CreateHistogram("feedback_receiver.journal.flush.duration", "s", "How long it took to have a batch on disk",
            advice: new InstrumentAdvice<double> {
                HistogramBucketBoundaries = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
            });
        var entries = meter.CreateHistogram("feedback_receiver.journal.flush.entries", "{entry}", "How many entries one flush kept",
            advice: new InstrumentAdvice<long> { HistogramBucketBoundaries = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 10_000] });
        journal.Flushed += (count, took) => {
            duration.Record(took.TotalSeconds);
            entries.Record(count);
        };
        meter.CreateObservableGauge("feedback_receiver.journal.waiting", () => journal.Waiting, "{entry}", "Entries that wait for the disk now");
        meter.CreateObservableGauge("feedback_receiver.disk.free", () => {
            try { return [new(disk.Free(journal.Folder))]; } catch (IOException) { return Array.Empty<Measurement<long>>(); }
        }, "By", "Room left on the journal's disk");
    }

    void AddStore(Meter meter) {
        void Gauge(string name, string? unit, string what, Func<Seen, double> value) =>
            meter.CreateObservableGauge("feedback_receiver." + name, () =>
                _seen is { } seen ? [new(value(seen))] : Array.Empty<Measurement<double>>(), unit, what);
        void Rate(string name, string what, Func<Rates, double?> rate) => meter.CreateObservableGauge("feedback_receiver." + name, () =>
            _seen is not { } seen ? [] : new[] { ("24h", rate(seen.Day)), ("7d", rate(seen.Week)) }.Where(each => each.Item2 is not null)
                .Select(each => new Measurement<double>(each.Item2!.Value,
                    new KeyValuePair<string, object?>("window", each.Item1))), null, what);

        Gauge("suppressions", "{address}", "Addresses that are suppressed", seen => seen.State.Suppressed);
        Gauge("unread", "{message}", "Genuine messages that could not be read", seen => seen.State.Unread);
        Gauge("journal.size", "By", "The journal's size", seen => seen.State.JournalBytes);
        Gauge("follower.behind", "By", "The part of the journal that the store has yet to copy", seen => seen.State.BehindBytes);
        meter.CreateObservableGauge("feedback_receiver.follower.waiting", () => _seen?.State.BehindEntries is { } entries
            ? [new(entries)] : Array.Empty<Measurement<long>>(), "{entry}", "Entries that the store has yet to copy; not there while its file is built anew beside a running receiver");
        Gauge("follower.lag", "s", "How long the oldest entry has waited to be copied", seen => seen.State.Behind.TotalSeconds);
        Rate("bounce.ratio", "Hard bounces to mails, as SES counts them; not there while neither sends nor deliveries are collected",
            rates => rates.BounceRate);
        Rate("complaint.ratio", "Complaints to deliveries, as SES counts them; not there while deliveries are not collected",
            rates => rates.ComplaintRate);
        meter.CreateObservableGauge("feedback_receiver.topic.last_message.timestamp", () => _seen?.State.Topics
            .Where(topic => topic.LastAt is not null)
            .Select(topic => new Measurement<long>(topic.LastAt!.Value.ToUnixTimeSeconds(),
                new KeyValuePair<string, object?>("topic", topic.TopicArn)))
            ?? [], "s", "When the topic's last message came, in Unix time");
        meter.CreateObservableCounter("feedback_receiver.feedback", () => _seen?.Counts.Where(count => !count.ToSimulator)
            .GroupBy(count => (count.Kind, count.Type), (kind, counts) => new Measurement<long>(Counted(kind, counts.Sum(count => count.Number)),
                new KeyValuePair<string, object?>("kind", kind.Kind), new KeyValuePair<string, object?>("type", kind.Type)))
            ?? [], "{event}", "Events that are stored, each once, by what SES calls them; without the mailbox simulator's");
    }

    // A counter that falls has begun anew, to Prometheus: so what was forgotten since the start is counted on.
    long Counted((string Kind, string Type) kind, long stored) {
        lock (_counted) {
            var (before, forgotten) = _counted.GetValueOrDefault(kind);
            _counted[kind] = (stored, forgotten += Math.Max(0, before - stored));
            return stored + forgotten;
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken) {
        while (!stoppingToken.IsCancellationRequested) {
            try { _seen = await SeeAsync(); } catch (Exception) { _seen = null; } // of any kind: the receiver goes on without figures
            await Task.Delay(Interval, _clock, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    async Task<Seen> SeeAsync() {
        var now = _clock.GetUtcNow();
        try {
            var week = await _store.CountsAsync(hourly: true, now.AddDays(-7));
            return new(await _store.StateAsync(), await _store.CountsAsync(hourly: false, DateTimeOffset.UnixEpoch),
                Rates.Of(week.Where(count => count.At > now.AddDays(-1))), Rates.Of(week));
        } catch (Unavailable) { // or history is being built anew: then a counter stays, and no rate is known
            return new(await _store.StateAsync(), _seen?.Counts ?? [], new(0, 0, 0, 0), new(0, 0, 0, 0));
        }
    }
}
