// Tells the application of every suppression that began, changed or ended, by POST, signed as https://www.standardwebhooks.com
// says. Hook:Url turns it on, from then on; Hook:Secret is what both sides know.
//
// At least once, and strictly in the order of what happened: while one change cannot be told, those after it wait. webhook-id is
// the same whenever a change is told again. The changes that are still to be told lie in feedback.db, with what they led to, and
// how far they were told in hook.position beside the journal: so a rebuild, which judges all history anew, tells nothing twice,
// and a change that a wrong file had lost is found again. Not told: what changes while Hook:Url is empty, what only a rebuild by
// other settings changed, and what happens to people who were forgotten, for their address is not known.

using System.Diagnostics.Metrics;
using LiteDB;

static partial class Extras {
    static partial void AddHook(WebApplicationBuilder builder) {
        builder.Services.AddSingleton<IValidateOptions<HookOptions>, HookOptionsValidator>()
            .AddOptions<HookOptions>().Bind(builder.Configuration).ValidateOnStart();
        if (string.IsNullOrEmpty(builder.Configuration["Hook:Url"])) return;
        // In place of the core's, so that `rebuild` keeps them, too.
        builder.Services.AddSingleton(services => new LiteDbStore(services.GetRequiredService<Journal>(),
            services.GetRequiredService<IOptions<ReceiverOptions>>(), services.GetRequiredService<TimeProvider>(),
            services.GetRequiredService<Log>()).KeepingChanges());
        builder.Services.AddSingleton<Hook>().AddHostedService(services => services.GetRequiredService<Hook>())
            .AddSingleton<Func<Finding?>>(services => services.GetRequiredService<Hook>().Find)
            .AddSingleton<Func<Errand>>(services => services.GetRequiredService<Hook>().Report);
    }
}

sealed class HookOptions : IValidatableObject {
    [ConfigurationKeyName("Hook:Url")] public string Url { get; set; } = "";
    [ConfigurationKeyName("Hook:Secret")] public string Secret { get; set; } = "";
    /// <summary>Null when the secret is none.</summary>
    public byte[]? Key {
        get {
            byte[] key = new byte[64];
            return Secret.StartsWith("whsec_", Ordinal) && Convert.TryFromBase64String(Secret[6..], key, out int length) && length >= 24
                ? key[..length] : null;
        }
    }

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext) {
        if (Url.Length == 0) yield break;
        if (!Uri.TryCreate(Url, UriKind.Absolute, out var url) || url.Scheme is not ("http" or "https") || url.UserInfo.Length > 0)
            yield return new("Hook:Url is not the URL of an endpoint, as https://app.example.com/hooks/suppressions is");
        if (Key is null)
            yield return new("Hook:Secret must be whsec_ and the base64 of 24 to 64 bytes: echo whsec_$(openssl rand -base64 32)");
    }
}

[OptionsValidator] sealed partial class HookOptionsValidator : IValidateOptions<HookOptions>;

/// <summary>Posts the store's changes, one after the other, for as long as the receiver runs.</summary>
sealed class Hook : BackgroundService {
    const int Batch = 64;
    static readonly TimeSpan Poll = TimeSpan.FromSeconds(1), Soon = TimeSpan.FromSeconds(1), ShortestPause = TimeSpan.FromSeconds(1),
        LongestPause = TimeSpan.FromHours(1), StorePause = TimeSpan.FromSeconds(10), Late = TimeSpan.FromMinutes(10);
    readonly HttpClient _http = new(new SocketsHttpHandler {
        AllowAutoRedirect = false, UseCookies = false, MaxResponseDrainSize = 64 << 10, PooledConnectionLifetime = TimeSpan.FromMinutes(5),
    }) { Timeout = TimeSpan.FromSeconds(10) };
    readonly IFeedbackStore _store;
    readonly TimeProvider _clock;
    readonly ILogger<Hook> _logger;
    readonly Counter<long> _deliveries;
    readonly (Uri Url, byte[] Key) _endpoint;
    TimeSpan _pause = ShortestPause;
    volatile Change? _oldest; // of those that are still to be told
    volatile bool _refused; // the last time
    long _taken; // when the endpoint last took one, or this began, in ticks

    public Hook(IFeedbackStore store, IOptions<HookOptions> options, TimeProvider clock, IMeterFactory meters, ILogger<Hook> logger) {
        (_store, _clock, _logger, _endpoint) = (store, clock, logger, (new Uri(options.Value.Url), options.Value.Key!));
        _taken = clock.GetUtcNow().UtcTicks;
        var meter = meters.Create("FeedbackReceiver");
        _deliveries = meter.CreateCounter<long>("feedback_receiver.hook.deliveries", "{change}", "Changes posted to Hook:Url, by outcome");
        meter.CreateObservableGauge("feedback_receiver.hook.lag", () => Lag, "s", "Age of the oldest change that is still to be told; 0: none is");
    }

    double Lag => _oldest is { } oldest ? Math.Max(0, (_clock.GetUtcNow() - oldest.At).TotalSeconds) : 0;
    /// <summary>Told: nothing waits. Telling: something does. Failing: and the last try failed.</summary>
    public Errand Report() => new("hook", _refused ? "failing" : _oldest is null ? "told" : "telling", Math.Round(Lag, 3));
    /// <summary>What the operator should hear: that the endpoint refuses, and since when something waits for it.</summary>
    public Finding? Find() => _oldest is not { } oldest || !_refused || _clock.GetUtcNow() - oldest.At < Late
        || _clock.GetUtcNow().UtcTicks - Volatile.Read(ref _taken) < Late.Ticks ? null : new("hook-refused", "warning",
        $"Hook:Url has taken nothing since {oldest.At.UtcDateTime:yyyy-MM-dd HH:mm 'UTC'}.",
        "see the receiver's log, and mend the endpoint");

    protected override async Task ExecuteAsync(CancellationToken stoppingToken) {
        while (!stoppingToken.IsCancellationRequested) {
            var pause = Poll;
            try {
                if (await TellAsync(stoppingToken)) continue;
            } catch (Exception e) { // of any kind, for whatever escapes here would end the process
                if (stoppingToken.IsCancellationRequested) return;
                bool isStore = e is Unavailable; // which says nothing of the endpoint
                pause = (isStore ? StorePause : _pause) * (0.5 + Random.Shared.NextDouble() / 2); // so that what failed together does not come back together
                if (!isStore) {
                    (_refused, _pause) = (true, _pause * 2 < LongestPause ? _pause * 2 : LongestPause);
                    _deliveries.Add(1, new KeyValuePair<string, object?>("outcome", "failed"));
                }
                _logger.Untold(Math.Round(pause.TotalSeconds, 1), e is Untold ? e.Message : e.GetType().Name);
            }
            await Task.Delay(pause, _clock, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    // False when there was nothing to tell. What was told is dropped, even when the next one cannot be; and before the next when it took
    // long: then PostgreSQL says, too, if another receiver has taken over, which would be told of newer changes meanwhile.
    async Task<bool> TellAsync(CancellationToken stopping) {
        var (changes, since, told) = (await _store.ChangesAsync(Batch), _clock.GetTimestamp(), 0L);
        _oldest = changes.Count > 0 ? changes[0] : null;
        _refused &= changes.Count > 0;
        try {
            foreach (var change in changes) {
                _oldest = change;
                await PostAsync(change, stopping);
                (told, _pause, _refused) = (change.Number, ShortestPause, false);
                Volatile.Write(ref _taken, _clock.GetUtcNow().UtcTicks);
                _deliveries.Add(1, new KeyValuePair<string, object?>("outcome", "told"));
                if (_clock.GetElapsedTime(since) < Soon) continue;
                await _store.DropChangesAsync(told);
                (since, told) = (_clock.GetTimestamp(), 0);
            }
        } finally { if (told > 0) await _store.DropChangesAsync(told); }
        return changes.Count > 0;
    }

    async Task PostAsync(Change change, CancellationToken stopping) {
        var (id, body, at) = (IdOf(change), BodyOf(change), _clock.GetUtcNow().ToUnixTimeSeconds());
        using var request = new HttpRequestMessage(HttpMethod.Post, _endpoint.Url) { Content = new ReadOnlyMemoryContent(body) };
        request.Content.Headers.ContentType = new("application/json");
        request.Headers.Add("webhook-id", id);
        request.Headers.Add("webhook-timestamp", $"{at}");
        request.Headers.Add("webhook-signature", Signature(_endpoint.Key, id, at, body.Span));
        try {
            // The status is the answer; the body is not read.
            using var response = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, stopping);
            if (!response.IsSuccessStatusCode) throw new Untold($"HTTP {(int)response.StatusCode}");
        } catch (OperationCanceledException) when (!stopping.IsCancellationRequested) { throw new Untold("no answer within 10 s"); }
    }

    /// <summary>The same for the same change, however often it is told.</summary>
    public static string IdOf(Change change) => "msg_" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(
        string.Join('\n', change.Address, change.Before, change.Reason, change.At.UtcTicks, change.Event))))[..32];
    /// <summary>What Standard Webhooks signs, and how.</summary>
    public static string Signature(byte[] key, string id, long at, ReadOnlySpan<byte> body) => "v1," + Convert.ToBase64String(
        HMACSHA256.HashData(key, (byte[])[.. Encoding.UTF8.GetBytes($"{id}.{at}."), .. body]));

    static ReadOnlyMemory<byte> BodyOf(Change change) {
        var (body, json) = ApiJson.Write();
        json.WriteStartObject();
        json.WriteString("type", change.Before is null ? "suppression.added"
            : change.Reason is null ? "suppression.lifted" : "suppression.changed");
        json.WriteString("timestamp", change.At.UtcDateTime);
        json.WriteStartObject("data");
        json.WriteString("address", change.Address);
        json.WriteString("reason", change.Reason);
        json.WriteString("before", change.Before);
        json.WriteString("event", change.Event);
        json.WriteEndObject();
        json.WriteEndObject();
        json.Flush();
        return body.WrittenMemory;
    }

    public override void Dispose() {
        base.Dispose();
        _http.Dispose();
    }

    sealed class Untold(string why) : Exception(why);
}

/// <summary>The changes that are still to be told, by number, and the number up to which they were. All of them lie in memory, some 250 to
/// 500 bytes each.</summary>
sealed class Outbox {
    readonly Lock _gate = new();
    readonly SortedDictionary<long, Change> _untold = [];
    readonly string _path;
    readonly Func<string, bool> _isForgotten;
    readonly Queue<Change> _unwritten = new();
    long _told;

    /// <summary>The first time, what is in the journal by now counts as told.</summary>
    public Outbox(string folder, long end, Func<string, bool> isForgotten) {
        (_path, _isForgotten) = (Path.Combine(folder, "hook.position"), isForgotten);
        string position = File.Exists(_path) ? File.ReadAllText(_path) : "";
        if (position.Length > 0 && !long.TryParse(position, NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out _told))
            throw new Refusal(_path + " holds no position: remove it, and what changes from now on is told");
        _told = position.Length == 0 || _told > end ? end : _told; // after it: a journal that was put back
        Keep(_told);
    }

    public long Told { get { lock (_gate) return _told; } }
    // In place, for it is always as long, and shorter than a sector.
    void Keep(long told) {
        using var file = Disk.Open(_path, FileShare.None);
        file.Write(Encoding.ASCII.GetBytes($"{told:D20}\n"));
        file.Flush(flushToDisk: true);
    }

    public void Add(Change change) {
        lock (_gate) if (change.Number > _told && _untold.TryAdd(change.Number, change)) _unwritten.Enqueue(change);
    }

    public Change[] First(int most) { lock (_gate) return [.. _untold.Values.Where(IsKnown).Take(most)]; }
    bool IsKnown(Change change) => !_isForgotten(change.Address);

    public void Drop(long upTo) {
        lock (_gate) {
            _told = Math.Max(_told, upTo);
            while (_untold.Count > 0 && _untold.First().Key is var first && first <= _told) _untold.Remove(first);
        }
        Keep(upTo); // not while the journal's writer may wait for the gate
    }
    /// <summary>What the file lacks: all of it when the file was opened anew, for nobody knows what reached it.</summary>
    public Change[] Unwritten(bool all) {
        lock (_gate) {
            Change[] unwritten = [.. (all ? _untold.Values : (IEnumerable<Change>)_unwritten).Where(IsKnown)];
            _unwritten.Clear();
            return unwritten;
        }
    }
}

partial interface IFeedbackStore {
    /// <summary>The suppressions that began, changed or ended, oldest first; and the end of what was told of.</summary>
    Task<IReadOnlyList<Change>> ChangesAsync(int most);
    Task DropChangesAsync(long upTo);
}

sealed partial class LiteDbStore {
    Outbox? _outbox;

    public LiteDbStore KeepingChanges() {
        _outbox = _file.Outbox = new(journal.Folder, journal.End, address => Alias(address) != address);
        return this;
    }
    // Before the journal is read: what it says again has the same numbers.
    partial void LoadChanges() {
        if (_outbox is not null) foreach (var change in _file.Changes()) _outbox.Add(change);
    }

    partial void Changing(Change change) {
        if (!change.Address.StartsWith("forgotten:", Ordinal) && !change.Address.StartsWith("sha256:", Ordinal)) _outbox?.Add(change);
    }
    // None while the journal is being read, for what is found there comes first.
    public Task<IReadOnlyList<Change>> ChangesAsync(int most) =>
        Task.FromResult<IReadOnlyList<Change>>(_loaded.Task.IsCompleted && _outbox is not null ? _outbox.First(most) : []);

    public Task DropChangesAsync(long upTo) {
        _outbox?.Drop(upTo);
        return Task.CompletedTask;
    }
}

sealed partial class FeedbackFile {
    LiteDatabase? _writtenTo;
    long _dropped;

    public Outbox? Outbox { get; set; }
    public List<Change> Changes() => Guarded(() => Database.GetCollection("changes").FindAll()
        .Select(change => new Change(change["_id"].AsInt64,
            change["email"].AsString, change["before"].AsString, change["reason"].AsString,
            new DateTimeOffset(change["at"].AsInt64, TimeSpan.Zero), change["event"].AsString)).ToList());

    partial void WriteChanges() {
        if (Outbox is null) return;
        var changes = Database.GetCollection("changes");
        // A transaction that fails has the file opened again.
        foreach (var change in Outbox.Unwritten(all: _writtenTo != _database))
            changes.Upsert(new BsonDocument {
                ["_id"] = change.Number, ["email"] = change.Address, ["before"] = change.Before, ["reason"] = change.Reason,
                ["at"] = change.At.UtcTicks, ["event"] = change.Event,
            });
        if (Outbox.Told is var told && (told > _dropped || _writtenTo != _database))
            changes.DeleteMany(BsonExpression.Create("_id BETWEEN @0 AND @1", 0L, told));
        (_writtenTo, _dropped) = (_database, told);
    }
}

static partial class HookLog {
    [LoggerMessage(121, Warning, "The hook is tried again in {Seconds} s: {Why}")]
    public static partial void Untold(this ILogger logger, double seconds, string why);
}
