// Tells the team before AWS does. Alerts:Url, as Slack and what imitates it gives one, gets {"text": ...} once when something
// crosses a line, and once when it is well again; looked at every minute. A mailing is named by its subject, without addresses.
//
// What was said lies in alerts.json beside the journal, so a restart repeats nothing. While Alerts:Url cannot be reached, nothing
// is queued: what still holds then is said. With PostgreSQL, set Alerts:Url on one of the receivers.

using System.Diagnostics.Metrics;

static partial class Extras {
    static partial void AddAlerts(WebApplicationBuilder builder) {
        builder.Services.AddSingleton<IValidateOptions<AlertOptions>, AlertOptionsValidator>()
            .AddOptions<AlertOptions>().Bind(builder.Configuration).ValidateOnStart();
        if (!string.IsNullOrEmpty(builder.Configuration["Alerts:Url"])) builder.Services.AddHostedService<Alerts>();
    }
}

sealed class AlertOptions : IValidatableObject {
    [ConfigurationKeyName("Alerts:Url")] public string Url { get; set; } = "";
    [ConfigurationKeyName("Alerts:SilenceDays")] public int SilenceDays { get; set; } = 7;

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext) {
        if (Url.Length > 0 && !(Uri.TryCreate(Url, UriKind.Absolute, out var url) && url.Scheme is "http" or "https"))
            yield return new("Alerts:Url is not the URL of a webhook, as https://hooks.slack.com/services/... is");
        if (SilenceDays is < 0 or > 365) yield return new("Alerts:SilenceDays must be 0 (off) to 365");
    }
}

[OptionsValidator] sealed partial class AlertOptionsValidator : IValidateOptions<AlertOptions>;

/// <summary>Something that the team should hear of. It is said again when its level rises.</summary>
sealed record Alarm(string Key, string Says, int Level = 1);

/// <summary>Looks every minute, and says what is new.</summary>
sealed partial class Alerts : BackgroundService {
    /// <summary>Where the rate is unknown: so many hard bounces, or complaints, in one clock hour.</summary>
    public const int BouncesAnHour = 50, ComplaintsAnHour = 5;
    /// <summary>A line that was crossed is behind again under so much of it, lest a rate that trembles be said each time.</summary>
    public const double WellUnder = 0.8;
    const int MostEvents = 10_000;
    const long LowDisk = 1L << 30;
    const string Certificate = "certificate";
    static readonly TimeSpan Interval = TimeSpan.FromMinutes(1), LongestPause = TimeSpan.FromHours(1),
        Late = TimeSpan.FromMinutes(10), NearItsEnd = TimeSpan.FromDays(7);
    readonly HttpClient _http = new(new SocketsHttpHandler {
        AllowAutoRedirect = false, UseCookies = false, MaxResponseDrainSize = 64 << 10, PooledConnectionLifetime = TimeSpan.FromMinutes(5),
    }) { Timeout = TimeSpan.FromSeconds(10) };
    readonly IFeedbackStore _store;
    readonly SigningCertificates _certificates;
    readonly Disk _disk;
    readonly TimeProvider _clock;
    readonly ILogger<Alerts> _logger;
    readonly Counter<long> _alerts;
    readonly AlertOptions _options;
    readonly IServiceProvider _services;
    readonly string _folder;
    readonly Dictionary<string, int> _said; // the level of each
    DateTimeOffset _read; // when the store last could be
    bool _checked;

    public Alerts(IFeedbackStore store, SigningCertificates certificates, Disk disk, IOptions<AlertOptions> options,
        IOptions<ReceiverOptions> receiver, TimeProvider clock, IMeterFactory meters, IServiceProvider services, ILogger<Alerts> logger) {
        (_store, _certificates, _disk, _options, _clock, _services, _logger) =
            (store, certificates, disk, options.Value, clock, services, logger);
        (_folder, _read) = (receiver.Value.JournalDirectory, clock.GetUtcNow());
        _said = Load(PathOfSaid);
        _alerts = meters.Create("FeedbackReceiver").CreateCounter<long>("feedback_receiver.alerts", "{alert}",
            "Alerts posted to Alerts:Url, by outcome");
    }

    string PathOfSaid => Path.Combine(_folder, "alerts.json");

    protected override async Task ExecuteAsync(CancellationToken stoppingToken) {
        for (var after = Interval; !stoppingToken.IsCancellationRequested;) {
            var pause = Interval;
            try {
                await CheckAsync(stoppingToken);
                after = Interval;
            } catch (Exception e) { // of any kind, for whatever escapes here would end the process
                if (stoppingToken.IsCancellationRequested) return;
                (pause, after) = (after, after * 2 < LongestPause ? after * 2 : LongestPause);
                _logger.Unsaid(pause.TotalMinutes, e is Unsaid ? e.Message : e.GetType().Name);
            }
            await Task.Delay(pause, _clock, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    // What holds now and was not said yet, or less loudly; then what was said and holds no more.
    async Task CheckAsync(CancellationToken stopping) {
        var now = _clock.GetUtcNow();
        List<Alarm> alarms = [.. await OfTheMachineAsync(now), .. _services.GetServices<Func<Finding?>>().Select(find => find())
            .OfType<Finding>().Select(finding => new Alarm(finding.Code, $"{finding.Says} To mend it: {finding.Mend}."))];
        bool complete = _checked; // the first time not all have looked yet
        try {
            // Of a store that is being built anew the half that is there would tell of silence, and of no complaints.
            bool caughtUp = await _store.CaughtUpAsync();
            var state = await _store.StateAsync();
            if (state.Behind >= Late) alarms.Add(new("follower",
                $"History and counts are {state.Behind.TotalMinutes:0} minutes behind. The receiver's log says why; nothing is lost."));
            if (caughtUp) alarms.AddRange(await OfTheStoreAsync(state, now)); else complete = false;
            _read = now;
        } catch (Unavailable) {
            complete = false;
            if (now - _read >= Late)
                alarms.Add(new("store", $"What is stored cannot be read since {Utc(_read)}. The receiver's log says why."));
        }
        foreach (var alarm in alarms) {
            if (alarm.Level > _said.GetValueOrDefault(alarm.Key)) await SayAsync(alarm.Says, stopping);
            Save(alarm.Key, alarm.Level);
        }
        foreach (string over in complete ? _said.Keys.Except(alarms.Select(alarm => alarm.Key)).ToArray() : []) {
            if (over == Certificate && _certificates.LastEnd is null) continue; // none was needed since the start
            await SayAsync($"All clear: {over}.", stopping);
            Save(over, 0);
        }
        _checked = true;
    }

    async Task<List<Alarm>> OfTheMachineAsync(DateTimeOffset now) {
        var alarms = new List<Alarm>();
        if (!await _store.IsWritableAsync())
            alarms.Add(new("journal", "Nothing can be kept: SNS is told 503 and tries again, for an hour at most. See to the disk."));
        if (_store is LiteDbStore && _disk.Free(_folder) is var free and < LowDisk)
            alarms.Add(new("disk", $"{free >> 20} MiB are left on the journal's disk. Make room: when it is full, SNS is told 503."));
        if (_certificates.LastEnd is { } end && end - now < NearItsEnd)
            alarms.Add(new(Certificate, $"The newest signing certificate that SNS used ends on {Utc(end)}. "
                + "Its next one is fetched from SNS: see that this machine can reach it, or put the file into Sns:CertificateDirectory."));
        return alarms;
    }

    async Task<List<Alarm>> OfTheStoreAsync(StoreState state, DateTimeOffset now) {
        var alarms = new List<Alarm>();
        // SNS tries for an hour at most: what comes later came by another subscription, as a queue's is.
        foreach (var topic in state.Topics.Where(topic => topic.UnsubscribedAt is { } at && !(topic.ConfirmedAt >= at)
            && !(topic.LastAt > at.AddHours(1))))
            alarms.Add(new($"unsubscribed {topic.TopicArn}", $"{topic.TopicArn} was unsubscribed on {Utc(topic.UnsubscribedAt!.Value)}: "
                + "nothing comes from it any more. Subscribe it again."));
        if (_options.SilenceDays > 0 && state.Topics.Max(topic => topic.LastAt) is { } last
            && now - last >= TimeSpan.FromDays(_options.SilenceDays))
            alarms.Add(new("silence",
                $"Nothing has come from SNS since {Utc(last)}. Is mail sent, with the configuration set, and is the topic subscribed?"));
        var week = await _store.CountsAsync(hourly: true, now.AddDays(-7));
        foreach (var measure in Measures)
            if (measure.Look(week, now, _said.GetValueOrDefault(measure.Key)) is { } alarm)
                alarms.Add(alarm.Level <= _said.GetValueOrDefault(alarm.Key)
                    ? alarm
                    : alarm with { Says = alarm.Says + await MailingAsync(measure.Kind, now) });
        return alarms;
    }

    /// <summary>Bounces or complaints: what they are measured by, and where SES minds.</summary>
    sealed record Measure(string Key, string Kind, string Of, string Lacks, double[] Lines, int AnHour,
        Func<Rates, (long Number, long Of)> Counted) {
        static readonly string[] Minds = ["advises to stay under", "puts an account under review at", "may pause sending at"];
        /// <summary>Null when it is well. Of the last day and the last week, the worse.</summary>
        public Alarm? Look(IReadOnlyList<Count> week, DateTimeOffset now, int said) {
            (string In, long Number, long Of)[] windows = [In("24 hours", week.Where(count => count.At > now.AddDays(-1))),
                In("7 days", week)];
            // More than there were mails: then only those of some configuration set are collected.
            if (windows[1].Of == 0 || windows[1].Number > windows[1].Of) return LookAtHours(week, now, said);
            var (level, worst) = windows.Select(window => (Level: LevelOf(window.Number, window.Of, said), window))
                .MaxBy(each => (each.Level, (double)each.window.Number / Math.Max(1, each.window.Of)));
            return level == 0 ? null : new(Key, string.Create(CultureInfo.InvariantCulture,
                $"{worst.Number:N0} {Key} to {worst.Of:N0} {Of} in {worst.In}: {100.0 * worst.Number / worst.Of:0.###} %. "
                + $"SES {Minds[level - 1]} {100 * Lines[level - 1]:0.###} %."), level);
        }

        (string, long, long) In(string window, IEnumerable<Count> counts) =>
            Counted(Rates.Of(counts)) is var (number, of) ? (window, number, of) : default;

        int LevelOf(long number, long of, int said) {
            int level = of < Rates.Enough ? 0 : Lines.Length;
            while (level > 0 && number < of * Lines[level - 1] * (level <= said ? WellUnder : 1)) level--;
            return level;
        }

        // This clock hour or the one before.
        Alarm? LookAtHours(IReadOnlyList<Count> week, DateTimeOffset now, int said) {
            long most = week.Where(count => count.At > now.AddHours(-2)).GroupBy(count => count.At)
                .Max(hour => (long?)Counted(Rates.Of(hour)).Number) ?? 0;
            return most < AnHour * (said > 0 ? WellUnder : 1) ? null : new(Key, string.Create(CultureInfo.InvariantCulture,
                $"{most:N0} {Key} in one hour. The rate is unknown without {Lacks} events of all mail."));
        }
    }

    static readonly Measure[] Measures = [
        new("bounces", SesEvent.Bounce, "mails", "SEND or DELIVERY", Rates.BounceLines, BouncesAnHour,
            rates => (rates.Bounces, rates.Mails)),
        new("complaints", SesEvent.Complaint, "deliveries", "DELIVERY", Rates.ComplaintLines, ComplaintsAnHour,
            rates => (rates.Complaints, rates.Deliveries)),
    ];

    // Which mailing to stop: the subject and the domain that stand out in the last hour, or in the last day if it was quiet.
    async Task<string> MailingAsync(string kind, DateTimeOffset now) {
        try { return await StandsOutAsync(kind, now); } catch (Unavailable) { return ""; } // the alarm itself does not wait for it
    }
    async Task<string> StandsOutAsync(string kind, DateTimeOffset now) {
        foreach (var (hours, words) in new[] { (1, "the last hour"), (24, "24 hours") }) {
            var events = new List<Feedback>();
            var recent = _store.EventsAsync(new(Kind: kind, Since: now.AddHours(-hours)), CancellationToken.None).Take(MostEvents);
            await foreach (var (_, feedback) in recent) {
                var one = Rates.Of([new(feedback.At, kind, feedback.Type ?? "", feedback.SubType ?? "", feedback.ToSimulator, 1)]);
                if (one is { Bounces: 1 } or { Complaints: 1 }) events.Add(feedback);
            }
            if (events.Count == 0) continue;
            var (subject, number) = events.CountBy(feedback => feedback.Subject ?? "").MaxBy(each => each.Value);
            var (domain, there) = events.CountBy(feedback => feedback.Address.Split('@')[^1]).MaxBy(each => each.Value);
            return $" In {words}, {number} of {events.Count} answer "
                + $"{(subject.Length == 0 ? "mail whose subject is not collected" : $"\"{Plain(subject)}\"")}"
                + $", and {there} come from {Plain(domain)}.";
        }
        return "";
    }

    // As Slack wants it, and without what may be an address: somebody else wrote this.
    static string Plain(string text) {
        text = Addresses().Replace(Breaks().Replace(text, " "), "[address]");
        text = text.Length <= 120 ? text : text[..119] + "…";
        return text.Replace("&", "&amp;", Ordinal).Replace("<", "&lt;", Ordinal).Replace(">", "&gt;", Ordinal);
    }

    static string Utc(DateTimeOffset at) => at.UtcDateTime.ToString("yyyy-MM-dd HH:mm 'UTC'", CultureInfo.InvariantCulture);

    async Task SayAsync(string says, CancellationToken stopping) {
        var (body, json) = ApiJson.Write();
        json.WriteStartObject();
        json.WriteString("text", "FeedbackReceiver: " + says);
        json.WriteEndObject();
        json.Flush();
        using var request = new HttpRequestMessage(HttpMethod.Post, _options.Url) {
            Content = new ReadOnlyMemoryContent(body.WrittenMemory),
        };
        request.Content.Headers.ContentType = new("application/json");
        bool said = false;
        try {
            using var response = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, stopping);
            if (!response.IsSuccessStatusCode) throw new Unsaid($"HTTP {(int)response.StatusCode}");
            said = true;
        } catch (OperationCanceledException) when (!stopping.IsCancellationRequested) {
            throw new Unsaid("no answer within 10 s");
        } finally {
            _alerts.Add(1, new KeyValuePair<string, object?>("outcome", said ? "told" : "failed"));
        }
    }

    static Dictionary<string, int> Load(string path) {
        try {
            return JsonSerializer.Deserialize(File.ReadAllBytes(path), AlertJson.Default.DictionaryStringInt32) ?? [];
        } catch (Exception e) when (e is IOException or JsonException) { return []; } // at worst something is said twice
    }

    void Save(string key, int level) {
        if (_said.GetValueOrDefault(key) == level) return;
        if (level == 0) _said.Remove(key); else _said[key] = level;
        using (var file = Disk.Open(PathOfSaid + ".part", FileShare.None)) {
            file.SetLength(0);
            JsonSerializer.Serialize(file, _said, AlertJson.Default.DictionaryStringInt32);
        }
        File.Move(PathOfSaid + ".part", PathOfSaid, overwrite: true);
    }

    public override void Dispose() {
        base.Dispose();
        _http.Dispose();
    }

    sealed class Unsaid(string why) : Exception(why);
    [GeneratedRegex(@"[\p{C}\p{Z}]+")] private static partial Regex Breaks();
    [GeneratedRegex(@"[^\s@\uff20]+[@\uff20][^\s@\uff20]+")] private static partial Regex Addresses();
}

[JsonSerializable(typeof(Dictionary<string, int>))] sealed partial class AlertJson : JsonSerializerContext;

static partial class AlertLog {
    [LoggerMessage(131, Warning, "An alert cannot be told, and is tried again in {Minutes} min: {Why}")]
    public static partial void Unsaid(this ILogger logger, double minutes, string why);
}
