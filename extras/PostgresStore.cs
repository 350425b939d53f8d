// The second store: many receivers, one PostgreSQL. ConnectionStrings:Feedback=Host=... turns it on, and `FeedbackReceiver copy`
// brings the journal of a LiteDB receiver over. There is no journal here: a 200 is sent after COMMIT, and synchronous_commit is left
// as the server has it.
//
//   POST /sns -> verified -> queue -> the writer: one transaction for all that waits -> COMMIT -> 200
//
// A transaction locks in one order, whoever runs it: entries, events, suppressions, roll-ups, each by key. So none waits in a circle.
// Ids make all of it idempotent: what SNS sends again, or to another receiver, is known by its id and changes nothing.

using Npgsql;

static partial class Extras {
    static partial void AddPostgresStore(WebApplicationBuilder builder) {
        if (PostgresStore.SourceOf(builder.Configuration["ConnectionStrings:Feedback"]) is not { } source) return;
        builder.Services.AddSingleton(_ => PostgresStore.Build(source)).AddSingleton<PostgresStore>()
            .AddSingleton<IFeedbackStore>(services => services.GetRequiredService<PostgresStore>())
            .AddOptions<PostgresOptions>().Bind(builder.Configuration).ValidateOnStart();
    }
    static partial void RunCopy(string[] args, ref Task<int>? command) {
        if (args is ["copy", ..]) command = JournalCopy.RunAsync(args[1..]);
    }
}

/// <summary>KeepMessages: false leaves the text and the signature of a message that has events out of `entries`; its id stays.</summary>
sealed class PostgresOptions {
    [ConfigurationKeyName("Postgres:KeepMessages")] public bool KeepMessages { get; set; } = true;
}

/// <summary>Feedback in PostgreSQL. Every receiver on the database writes and reads the same rows, and none keeps anything in memory
/// that another could change.</summary>
sealed class PostgresStore(NpgsqlDataSource source, IConfiguration configuration, IOptions<ReceiverOptions> options,
    IOptions<PostgresOptions> postgres, TimeProvider clock, ILogger<PostgresStore> logger) : IFeedbackStore {
    /// <summary>The version of the schema that this program writes.</summary>
    public const int Schema = 1;
    const int MaxWaiting = 10_000, MostAtOnce = 512, FewWaiting = 16, Askers = 2, LongReaders = 8, Page = 1000;
    /// <summary>Of a transaction, more or less: PostgreSQL takes 1 GB at once.</summary>
    public const int MostCharacters = 4 << 20;
    readonly Channel<(PreparedEntry Entry, TaskCompletionSource<Commit> Told)> _queue =
        Channel.CreateBounded<(PreparedEntry, TaskCompletionSource<Commit>)>(MaxWaiting);
    readonly Channel<(string Address, TaskCompletionSource<Known?> Told)> _asked =
        Channel.CreateBounded<(string, TaskCompletionSource<Known?>)>(MaxWaiting);
    readonly bool _keepsChanges = !string.IsNullOrEmpty(configuration["Hook:Url"]);
    readonly short _shard = (short)Random.Shared.Next(16);
    readonly SemaphoreSlim _telling = new(1), _readingLong = new(LongReaders), _forgetting = new(1);
    readonly Lock _asking = new();
    Task<bool>? _writable;
    readonly Guid _own = Guid.NewGuid(); // of no message; and nobody waits for another's
    readonly ConcurrentDictionary<string, DateTimeOffset> _seen = []; // what was last written of a topic
    Task[] _loops = [];
    byte[] _forgetKey = [];
    NpgsqlConnection? _teller;
    long[] _told = [];
    (long Count, string Why, DateTimeOffset At) _trouble;

    /// <summary>Null when the connection string is LiteDB's, or none.</summary>
    /// <exception cref="Refusal">It is neither.</exception>
    public static NpgsqlSlimDataSourceBuilder? SourceOf(string? connection) {
        if (string.IsNullOrEmpty(connection) || connection.StartsWith("Filename=", OrdinalIgnoreCase)) return null;
        const string form = "is neither Filename=<path> nor PostgreSQL's, as Host=db.example.com;Database=feedback;Username=feedback is";
        try {
            var builder = new NpgsqlSlimDataSourceBuilder(connection);
            builder.EnableArrays().EnableTransportSecurity();
            var settings = builder.ConnectionStringBuilder;
            if (string.IsNullOrEmpty(settings.Host)) throw new Refusal("ConnectionStrings:Feedback " + form);
            if (settings.Multiplexing) throw new Refusal("ConnectionStrings:Feedback: Multiplexing would tear a transaction apart: leave it out");
            // SNS waits 15 seconds: for a batch before one's own that comes to nothing, and for one's own. In seconds, but for the last.
            (settings.Timeout, settings.CommandTimeout, settings.CancellationTimeout) =
                (AtMost(5, settings.Timeout), AtMost(5, settings.CommandTimeout), AtMost(1000, settings.CancellationTimeout));
            // Who asks for long hears of a dead host. A socket in the file system is of no other host, and takes no such option.
            if (!Array.Exists(settings.Host.Split(',', StringSplitOptions.TrimEntries), host => host is ['/' or '@', ..]))
                (settings.TcpKeepAlive, settings.TcpKeepAliveTime, settings.TcpKeepAliveInterval) = (true, 30, 10);
            // One writes, one holds the hook's lock, one tells of health, and so many read long. PostgreSQL has 100 for all receivers.
            settings.MaxPoolSize = Math.Max(settings.ShouldSerialize("Maximum Pool Size") ? settings.MaxPoolSize : 20, Askers + LongReaders + 4);
            if (settings.MaxAutoPrepare == 0) (settings.MaxAutoPrepare, settings.AutoPrepareMinUsages) = (50, 2);
            settings.NoResetOnClose = true; // what is set here stays, and to reset takes PostgreSQL 0.14 ms each time
            // Npgsql's 8 KiB cut a batch into many writes, each of which wakes the server; with more than 32 nothing was won.
            if (!settings.ShouldSerialize("Write Buffer Size")) settings.WriteBufferSize = 32 << 10;
            settings.ApplicationName ??= "FeedbackReceiver";
            settings.TargetSessionAttributes = null; // see Build
            settings.ClientEncoding = null; // or one receiver would spell an address otherwise than the next
            return builder.UsePhysicalConnectionInitializer(
                connection => { using var setUp = SetUp(connection); RefuseStandby(setUp.ExecuteScalar()); },
                async connection => { await using var setUp = SetUp(connection); RefuseStandby(await setUp.ExecuteScalarAsync()); });
        } catch (Exception e) when (IsOfTheString(e)) { throw new Refusal($"ConnectionStrings:Feedback {form}: {e.Message}"); }
        static int AtMost(int most, int value) => value == 0 ? most : Math.Min(most, value); // 0 is for ever
    }
    /// <summary>Of several hosts the primary is used.</summary>
    /// <exception cref="Refusal">Settings that do not go together.</exception>
    public static NpgsqlDataSource Build(NpgsqlSlimDataSourceBuilder builder) {
        try {
            var source = builder.Build();
            return source is NpgsqlMultiHostDataSource hosts ? hosts.WithTargetSession(TargetSessionAttributes.Primary) : source;
        } catch (Exception e) when (IsOfTheString(e)) { throw new Refusal("ConnectionStrings:Feedback: " + e.Message); }
    }
    static bool IsOfTheString(Exception e) =>
        e is ArgumentException or FormatException or OverflowException or InvalidOperationException or NotSupportedException;

    // Plans are made once, and by an index. Else one that was made while a table had a page or two reads all of it for every address,
    // in a night of many bounces for a minute or more, until autovacuum has looked; and short arrays are planned anew each time.
    // A receiver that stops in the midst of a transaction (its VM is paused, its host dies) lets go of its rows before others have waited too
    // long: once PostgreSQL has nothing more to do for it, and in the midst of what it sends, where no timeout runs, once its host says
    // nothing. Where policies would hide rows from us, that is an error. And CommitAsync must hear a warning.
    static NpgsqlCommand SetUp(NpgsqlConnection connection) => new("""
        select pg_is_in_recovery(), (select count(set_config(name, setting, false)) from (values ('enable_seqscan', 'off'),
            ('plan_cache_mode', 'force_generic_plan'), ('idle_in_transaction_session_timeout', '3s'), ('tcp_keepalives_idle', '5'),
            ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'), ('row_security', 'off'), ('client_min_messages', 'warning'))
            as ours (name, setting) where current_setting(name, true) is not null)
        """, connection);
    // A standby that lags knows less than was acknowledged, and the one host of a connection string may be one since a failover.
    static void RefuseStandby(object? isInRecovery) { if (isInRecovery is true) throw new NpgsqlException("PostgreSQL is a standby there"); }

    /// <summary>Creates or migrates the schema, then begins to write and to answer.</summary>
    /// <exception cref="Refusal">PostgreSQL cannot be reached or used, or a newer program has written there.</exception>
    public async Task StartAsync(CancellationToken cancellationToken) {
        for (var patience = Stopwatch.StartNew(); ;)
            try {
                _forgetKey = await PostgresSchema.MigrateAsync(source, cancellationToken);
                break;
            } catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.CannotConnectNow && patience.Elapsed.TotalSeconds < 60) {
                await Task.Delay(250, cancellationToken); // it is starting, or recovering from a crash
            } catch (Exception e) when (e is NpgsqlException or TimeoutException || IsOfTheString(e)) {
                throw new Refusal("ConnectionStrings:Feedback: "
                    + (e.InnerException is null ? e.Message : $"{e.Message}: {e.InnerException.Message}"));
            }
        _loops = [Task.Run(WriteUntilStoppedAsync, CancellationToken.None),
            .. Enumerable.Range(0, Askers).Select(_ => Task.Run(AskUntilStoppedAsync, CancellationToken.None))];
    }
    /// <summary>Answers what waits, for as long as there is time.</summary>
    public async Task StopAsync(CancellationToken cancellationToken) {
        _queue.Writer.TryComplete();
        _asked.Writer.TryComplete();
        await Task.WhenAny(Task.WhenAll(_loops), Task.Delay(Timeout.Infinite, cancellationToken));
        await LetGoAsync();
    }

    // ---- Writing: one writer takes whatever waits, writes it in one transaction, and only then answers, as the journal's does.

    /// <summary>As the settings have it.</summary>
    public PreparedEntry Prepare(Entry entry) => PreparedEntry.Of(entry, postgres.Value.KeepMessages);
    public Task<Commit> CommitAsync(Entry entry) {
        var told = new TaskCompletionSource<Commit>(TaskCreationOptions.RunContinuationsAsynchronously);
        return _queue.Writer.TryWrite((Prepare(entry), told)) ? told.Task
            : Task.FromResult(_queue.Reader.Completion.IsCompleted ? Commit.Unwritable : Commit.Busy);
    }

    async Task WriteUntilStoppedAsync() {
        var batch = new List<(PreparedEntry Entry, TaskCompletionSource<Commit> Told)>();
        while (await _queue.Reader.WaitToReadAsync()) {
            // A transaction costs much the same however few it holds. Where no core is idle, who runs now may bring more, or who waits for a
            // thread, and is let on before it begins; where one is, nobody is waited for.
            for (int i = 0; i < 4 && _queue.Reader.Count < FewWaiting; i++)
                if (ThreadPool.PendingWorkItemCount > 0) await Task.Yield();
                else Thread.Yield();
            for (long length = 0; batch.Count < MostAtOnce && length < MostCharacters && _queue.Reader.TryRead(out var next);
                length += next.Entry.Length) batch.Add(next);
            long began = Stopwatch.GetTimestamp();
            var commits = new Commit[batch.Count];
            Array.Fill(commits, Commit.Unwritable);
            await KeepAsync(batch.ConvertAll(each => each.Entry), commits: commits);
            for (int i = 0; i < commits.Length; i++) batch[i].Told.SetResult(commits[i]);
            batch.Clear();
            if (commits[^1] == Commit.Unwritable) TellThoseBehind(_queue.Reader, began, Commit.Unwritable);
        }
    }
    // Who came meanwhile would wait as long for the same, and longer than SNS waits.
    static void TellThoseBehind<TAsked, TTold>(ChannelReader<(TAsked, TaskCompletionSource<TTold> Told)> queue, long began, TTold told) {
        if (!IsLong(began)) return;
        for (int count = queue.Count; count > 0 && queue.TryRead(out var next); count--) next.Told.SetResult(told);
    }
    static bool IsLong(long began) => Stopwatch.GetElapsedTime(began).TotalSeconds >= 2;
    /// <summary>Keeps entries, in their order. May be told more than once of the same. <paramref name="unless"/> is asked under the locks of the
    /// transaction when some of it is new: where it says true, nothing of it is kept. <paramref name="commits"/> is told what became of each that
    /// was tried.</summary>
    public async Task<Commit> KeepAsync(IReadOnlyList<PreparedEntry> entries, Func<NpgsqlConnection, Task<bool>>? unless = null,
        Commit[]? commits = null) {
        for (int attempt = 1; entries.Count > 0; attempt++)
            try {
                var commit = await WriteAsync(entries, unless);
                commits.AsSpan().Fill(commit);
                return commit;
            } catch (Exception e) { // whatever escaped here would end the writer
                if (!IsOfTheServer(e) && (entries.Count > 1 || IsOfTheEntry(e))) return await KeepEachAsync(entries, e, commits);
                if (!IsWorthAnother(e, attempt > (IsConflict(e) ? 8 : 1))) return Trouble(e);
                if (IsConflict(e)) await Task.Delay(Random.Shared.Next(2, 20 * attempt));
            }
        return Commit.Kept;
    }
    // No batch is lost over one entry, and no entry over one member: what PostgreSQL will not hold (a number of 200,000 digits) is
    // kept as text, else as unread.
    async Task<Commit> KeepEachAsync(IReadOnlyList<PreparedEntry> entries, Exception reason, Commit[]? commits) {
        var all = Commit.Kept;
        long began = Stopwatch.GetTimestamp();
        for (int i = 0; i < entries.Count; i++) {
            var simpler = entries.Count > 1 ? entries[i] : entries[i].Simpler((reason as PostgresException)?.SqlState ?? reason.GetType().Name);
            var commit = simpler is null ? Trouble(reason) : await KeepAsync([simpler]);
            if (commits is not null) commits[i] = commit;
            if (commit == Commit.Kept) continue;
            all = commit;
            if (IsLong(began)) break; // the others would wait as long for the same
        }
        return all;
    }

    static bool IsConflict(Exception e) => e is Overtaken or PostgresException {
        SqlState: PostgresErrorCodes.SerializationFailure or PostgresErrorCodes.DeadlockDetected
            or PostgresErrorCodes.FeatureNotSupported // a stale plan
    };
    // FATAL ends a connection: a restart, a failover, idle_session_timeout. The others say that this one is of no use any more: to what
    // is a standby since a failover, or through a pooler that let go of what was prepared.
    static bool IsLost(Exception e) => !IsExhausted(e) && e is NpgsqlException and (not PostgresException
        or PostgresException { InvariantSeverity: "FATAL" or "PANIC" }
        or PostgresException {
            SqlState: PostgresErrorCodes.ReadOnlySqlTransaction or PostgresErrorCodes.InvalidSqlStatementName
            or PostgresErrorCodes.DuplicatePreparedStatement or ['0', ..]
        });
    // Says nothing against those that are in use. Npgsql has no code for it, and of several hosts tells it within. (When it is the server
    // that has no more, 53300, Npgsql itself empties the pool.)
    static bool IsExhausted(Exception e) => $"{e.Message} {e.InnerException?.Message}".Contains("pool has been exhausted", Ordinal);
    // A lost connection is tried again at once, on a new one: after a restart of the server every idle one is dead. Whether COMMIT came
    // through does not matter, since ids tell. A server that says nothing is not waited for again.
    bool IsWorthAnother(Exception e, bool last) {
        if (IsLost(e)) source.Clear();
        return !last && (IsConflict(e) || IsLost(e)) && (e.InnerException ?? e) is not TimeoutException;
    }
    // The entry's fault: data exceptions, limits of a row, and what the driver will not send. The server's: what else comes from there,
    // such as that no partition takes the row or that a sequence is behind its table (23...), which somebody can mend.
    // Neither: ours, and then one entry's failing says nothing of the others.
    static bool IsOfTheEntry(Exception e) => e is PostgresException { SqlState: ['2', '2', ..] or ['5', '4', ..] }
        or ArgumentException or InvalidCastException or OverflowException;
    static bool IsOfTheServer(Exception e) => e is Overtaken or TimeoutException or IOException or OperationCanceledException
        or NpgsqlException && !IsOfTheEntry(e);
    sealed class Overtaken : Exception;

    Commit Trouble(Exception e) {
        string why = (e as PostgresException)?.SqlState ?? (e.InnerException ?? e).GetType().Name; // a message may quote what was sent
        bool due = clock.GetUtcNow() - _trouble.At > TimeSpan.FromSeconds(10);
        _trouble = (_trouble.Count + 1, why, due ? clock.GetUtcNow() : _trouble.At);
        if (due) logger.Trouble(why, _trouble.Count);
        return Commit.Unwritable;
    }

    async Task<Commit> WriteAsync(IReadOnlyList<PreparedEntry> entries, Func<NpgsqlConnection, Task<bool>>? unless) {
        if (unless is null && await GuessAsync(entries) is { } commit) return commit;
        await using var connection = await source.OpenConnectionAsync();
        var batch = await BeginAsync(connection, entries, options.Value.SoftBounceLimit, batch => batch.Insert());
        if (unless is not null && batch.HasNew && await unless(connection)) {
            await ReadAsync(connection, "rollback", _ => 0, []);
            return Commit.Kept;
        }
        batch.Judge();
        await CommitAsync(connection, batch.Update(_shard, _keepsChanges, _seen));
        batch.Remember(_seen);
        return Commit.Kept;
    }
    // Mostly all of it is new, and so are the addresses. So that is guessed, and what follows from it is sent along: one round trip, however
    // many entries there are. Where it was guessed wrong PostgreSQL keeps nothing, and it is asked, now and for the next hundred times: a
    // topic on which everything comes twice, as with both SES formats, goes on so.
    async Task<Commit?> GuessAsync(IReadOnlyList<PreparedEntry> entries) {
        if (_asks > 0) {
            _asks--;
            return null;
        }
        byte[] key = _forgetKey;
        long began = Stopwatch.GetTimestamp();
        var batch = new PostgresBatch(entries, options.Value.SoftBounceLimit, address => Alias(key, address));
        try {
            await using var connection = await source.OpenConnectionAsync();
            await CommitAsync(connection, [Begin(), .. batch.Guess(key), .. batch.Update(_shard, _keepsChanges, _seen)]);
        } catch (PostgresException e) when (e.SqlState is PostgresErrorCodes.UniqueViolation or PostgresErrorCodes.DivisionByZero) {
            _asks = 100;
            // It waited for another transaction, which is over; but it would have to wait longer than SNS does.
            return IsLong(began) ? Commit.Busy : null;
        }
        batch.Remember(_seen);
        return Commit.Kept;
    }
    int _asks; // so many more transactions are not guessed
    static NpgsqlBatchCommand Begin() => new("begin isolation level read committed");
    // What is asked takes two round trips: the first tells what was new. BEGIN and COMMIT travel with the others.
    async Task<PostgresBatch> BeginAsync(NpgsqlConnection connection, IReadOnlyList<PreparedEntry> entries, int softBounceLimit,
        Func<PostgresBatch, IEnumerable<NpgsqlBatchCommand>> first) {
        byte[] key = _forgetKey;
        var batch = new PostgresBatch(entries, softBounceLimit, address => Alias(key, address));
        await using var commands = new NpgsqlBatch(connection);
        commands.BatchCommands.Add(Begin());
        foreach (var command in first(batch)) commands.BatchCommands.Add(command);
        await using var reader = await commands.ExecuteReaderAsync();
        await batch.ReadInsertedAsync(reader);
        if (!batch.LockedAll || !IsStill(key, batch.ForgetKey)) throw new Overtaken(); // somebody was forgotten meanwhile
        return batch;
    }
    // Told to stop waiting for a synchronous standby, as when we have waited too long, PostgreSQL warns and says that COMMIT is done. What
    // only the primary has would be lost with it. https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION-HA
    static async Task CommitAsync(NpgsqlConnection connection, IEnumerable<NpgsqlBatchCommand> last) {
        bool isCut = false;
        connection.Notice += (_, e) => isCut |= e.Notice.Routine == "SyncRepWaitForLSN";
        await using var commands = new NpgsqlBatch(connection);
        foreach (var command in last) commands.BatchCommands.Add(command);
        commands.BatchCommands.Add(new("commit"));
        await commands.ExecuteNonQueryAsync();
        if (isCut) throw new TimeoutException();
    }

    // ---- Reading

    // Look-ups that come at the same time share one query, as commits share one transaction.
    async Task AskUntilStoppedAsync() {
        var asked = new List<(string Address, TaskCompletionSource<Known?> Told)>();
        while (await _asked.Reader.WaitToReadAsync()) {
            while (asked.Count < MostAtOnce && _asked.Reader.TryRead(out var next)) asked.Add(next);
            Known?[]? known = null;
            long began = Stopwatch.GetTimestamp();
            try {
                known = await FindEachAsync(asked.ConvertAll(each => each.Address));
            } catch (Exception e) { if (e is not Unavailable) Trouble(e); } // whatever escaped would end all look-ups
            for (int i = 0; i < asked.Count; i++) asked[i].Told.SetResult(known?[i]);
            asked.Clear();
            if (known is null) TellThoseBehind(_asked.Reader, began, null);
        }
    }

    public ValueTask<Known?> FindAsync(string address) {
        var told = new TaskCompletionSource<Known?>(TaskCreationOptions.RunContinuationsAsynchronously);
        return _asked.Writer.TryWrite((address, told)) ? new(told.Task) : new((Known?)null);
    }

    public async ValueTask<Known[]?> FindAsync(IReadOnlyList<string> addresses) {
        try {
            Known[] known = [.. (await FindEachAsync(addresses)).OfType<Known>()];
            return known.Length == addresses.Count ? known : null;
        } catch (Unavailable) {
            return null;
        } catch (FormatException e) { // somebody's hand was in the tables
            Trouble(e);
            return null;
        }
    }
    // Null for an address whose row a hand has spoilt: the others are told all the same.
    async Task<Known?[]> FindEachAsync(IReadOnlyList<string> addresses) {
        var known = new Known?[addresses.Count];
        for (int from = 0; from < known.Length;) {
            byte[] key = _forgetKey;
            string[] asked = [.. addresses.Skip(from).Take(Page * 10).Select(PreparedEntry.Clean)],
                aliases = Array.ConvertAll(asked, name => Alias(key, name));
            var found = await ReadAsync(Sql.Find, row => (row.IsDBNull(0) ? ForgetKey : row.GetString(0), row.GetString(1)),
                P<string[]>([.. asked.Concat(aliases).Distinct()]));
            var all = found.ToDictionary(each => each.Item1, each => each.Item2, StringComparer.Ordinal);
            if (!IsStill(key, all.GetValueOrDefault(ForgetKey) ?? throw new Unavailable())) continue;
            Known? Of(string name) => all.GetValueOrDefault(name) is { } json ? PostgresBatch.KnownOf(json) : null;
            for (int i = 0; i < asked.Length; i++)
                try { known[from + i] = PostgresBatch.Either(Of(aliases[i]), Of(asked[i])); } catch (JsonException e) { Trouble(e); }
            from += asked.Length;
        }
        return known;
    }
    const string ForgetKey = "\0"; // no address has that
    /// <summary>Under what somebody is known who was forgotten: a hash, by the key that lies in `meta`.</summary>
    public string Alias(string address) => Alias(_forgetKey, address);
    static string Alias(byte[] key, string address) =>
        "forgotten:" + Convert.ToHexStringLower(HMACSHA256.HashData(key, Encoding.UTF8.GetBytes(address)));
    // Whether what was hashed by a key is known by the one that was read beside it. `copy` may bring another while this runs: the LiteDB
    // receiver's. Then it is hashed and asked anew.
    bool IsStill(byte[] key, string? read) {
        if (read is null || (Convert.FromHexString(read) is var now && now.AsSpan().SequenceEqual(key))) return true;
        _forgetKey = now;
        return false;
    }

    /// <summary>Whether a row can be written: it is, and taken back. Those who ask at the same time share an answer.</summary>
    public Task<bool> IsWritableAsync() {
        lock (_asking) return _writable is { IsCompleted: false } ? _writable : _writable = TryAsync();
        async Task<bool> TryAsync() {
            try {
                return await UseAsync(async connection => {
                    await CommitAsync(connection, [Begin(), new($"insert into entries (id, at) values ('{_own}', now())"),
                        new($"delete from entries where id = '{_own}'")]);
                    return true;
                }, CancellationToken.None);
            } catch (Unavailable) { return false; }
        }
    }
    /// <summary>At once: what is committed can be read.</summary>
    public Task<bool> CaughtUpAsync() => Task.FromResult(true);

    /// <summary>Page by page, so that no query and no connection is held while the reader is slow.</summary>
    public async IAsyncEnumerable<(Guid Key, Feedback Feedback)> EventsAsync(EventQuery query,
        [EnumeratorCancellation] CancellationToken cancellation) {
        var highest = query.Highest;
        for (int count = 100; ; count = Page) {
            var (sql, parameters) = Sql.Newest(query, highest, count);
            var events = await ReadAsync(sql, Sql.EventOf, parameters, patient: true, cancellation);
            foreach (var each in events) if (query.Matches(each.Feedback)) yield return each;
            if (events.Count < count) yield break;
            highest = events[^1].Key;
        }
    }

    public async Task<IReadOnlyList<Count>> CountsAsync(bool hourly, DateTimeOffset since) => await ReadAsync(
        $"select key, sum(n)::bigint from {(hourly ? "hourly" : "daily")} where key >= $1 group by key order by key",
        row => Count.Of(row.GetString(0), row.GetInt64(1)),
        P(since.UtcDateTime.ToString(hourly ? Count.Hour : Count.Day, CultureInfo.InvariantCulture)));

    public async Task<StoreState> StateAsync() {
        var topics = await ReadAsync(
            "select topic_arn, confirmed_at, unsubscribed_at, validated_at, last_at, signature_version, doubled_at from subscriptions",
            row => new TopicState(row.GetString(0), At(row, 1), At(row, 2), At(row, 3),
                At(row, 4), row.IsDBNull(5) ? null : row.GetString(5), At(row, 6)));
        var (bytes, unread, suppressed, commit, fsync) = (await ReadAsync("""
            select pg_database_size(current_database()), (select count(*) from unread),
                (select coalesce(sum(n), 0)::bigint from totals where name = 'suppressed'), current_setting('synchronous_commit'), current_setting('fsync')
            """, row => (row.GetInt64(0), row.GetInt64(1), row.GetInt64(2), row.GetString(3), row.GetString(4))))[0];
        var findings = new List<string>();
        if (commit == "off")
            findings.Add("synchronous_commit is off, so PostgreSQL may lose what was acknowledged: ALTER SYSTEM RESET synchronous_commit; "
                + "SELECT pg_reload_conf(); and look at ALTER ROLE and ALTER DATABASE");
        if (fsync == "off")
            findings.Add("fsync is off, so a power cut can destroy the database: ALTER SYSTEM RESET fsync; SELECT pg_reload_conf();");
        if (_trouble.Count > 0 && clock.GetUtcNow() - _trouble.At < TimeSpan.FromDays(1))
            findings.Add($"PostgreSQL could not be used {_trouble.Count} times since the start, last at {_trouble.At:u} ({_trouble.Why})");
        return new("PostgreSQL", bytes, 0, TimeSpan.Zero, suppressed, unread, topics, findings);

        static DateTimeOffset? At(NpgsqlDataReader row, int column) => row.IsDBNull(column) ? null : Sql.Time(row, column);
    }

    public async IAsyncEnumerable<(string Address, Known Known)> SuppressionsAsync(string after,
        [EnumeratorCancellation] CancellationToken cancellation) {
        after = after.Split('\0')[0]; // the same: no address here has U+0000, which PostgreSQL will not hear of
        for (int count = 100; ; count = Page) {
            var page = await ReadAsync(Sql.Suppressions, row => (row.GetString(0), PostgresBatch.KnownOf(row.GetString(1))),
                [P(after), P(count)], patient: true, cancellation);
            foreach (var each in page) yield return each;
            if (page.Count < count) yield break;
            after = page[^1].Item1;
        }
    }
    /// <summary>A sum of counters that every transaction that changes a suppression raises, so it changes exactly at COMMIT.</summary>
    public async Task<string> SuppressionsVersionAsync() =>
        (await ReadAsync(Sql.Version, row => row.GetString(0)))[0];

    /// <exception cref="Unavailable">PostgreSQL cannot be read now.</exception>
    public Task<List<T>> ReadAsync<T>(string sql, Func<NpgsqlDataReader, T> read, params NpgsqlParameter[] parameters) =>
        ReadAsync(sql, read, parameters, patient: false, CancellationToken.None);
    /// <summary>The same, for what may take an hour.</summary>
    /// <exception cref="Unavailable">PostgreSQL cannot be read now.</exception>
    public Task<List<T>> ReadLongAsync<T>(string sql, Func<NpgsqlDataReader, T> read, params NpgsqlParameter[] parameters) =>
        ReadAsync(sql, read, parameters, patient: true, CancellationToken.None);

    // So many may take long that there is always a connection left for what SNS waits for.
    async Task<List<T>> ReadAsync<T>(string sql, Func<NpgsqlDataReader, T> read,
        NpgsqlParameter[] parameters, bool patient, CancellationToken cancellation) {
        if (patient && !await _readingLong.WaitAsync(TimeSpan.FromSeconds(5), cancellation)) throw new Unavailable();
        try {
            return await UseAsync(connection => ReadAsync(connection, sql, read, parameters, patient, cancellation), cancellation);
        } finally { if (patient) _readingLong.Release(); }
    }

    async Task<T> UseAsync<T>(Func<NpgsqlConnection, Task<T>> use, CancellationToken cancellation) {
        for (bool again = true; ; again = false)
            try {
                await using var connection = await source.OpenConnectionAsync(cancellation);
                return await use(connection);
            } catch (Exception e) when (e is NpgsqlException or TimeoutException or IOException or JsonException) { // the last: somebody's hand
                if (IsWorthAnother(e, last: !again)) continue;
                Trouble(e);
                throw new Unavailable();
            }
    }

    /// <summary>On a connection that is there, and may be in a transaction.</summary>
    public static async Task<List<T>> ReadAsync<T>(NpgsqlConnection connection, string sql, Func<NpgsqlDataReader, T> read,
        NpgsqlParameter[] parameters, bool patient = false, CancellationToken cancellation = default) {
        await using var command = new NpgsqlCommand(sql, connection);
        if (patient) command.CommandTimeout = 3600; // seconds: a rare subject among 100 million events takes its time; whoever asks can hang up
        foreach (var parameter in parameters) command.Parameters.Add(parameter.Clone());
        var rows = new List<T>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation)) rows.Add(read(reader));
        return rows;
    }
    /// <summary>A positional parameter.</summary>
    public static NpgsqlParameter<T> P<T>(T value) => new() { TypedValue = value };

    // ---- Changes, for extras/Hook.cs

    /// <summary>One receiver at a time tells of changes: the one whose connection holds the advisory lock. The others are told of none,
    /// and the next takes over when that connection ends.</summary>
    public async Task<IReadOnlyList<Change>> ChangesAsync(int most) {
        await _telling.WaitAsync();
        try {
            if (_teller is null) {
                var connection = await source.OpenConnectionAsync();
                try {
                    if (await ReadAsync(connection, "select pg_try_advisory_lock($1 # 'changes'::regclass::oid::bigint)", row => row.GetBoolean(0),
                        [P(PostgresSchema.Lock + 1)]) is [true]) _teller = connection;
                } finally { if (_teller is null) await connection.DisposeAsync(); }
            }
            if (_teller is null) return [];
            var changes = await ReadAsync(_teller,
                "select number, address, before, reason, at, event from changes order by number limit $1", ChangeOf, [P(most)]);
            _told = [.. changes.Select(change => change.Number)];
            return changes;
        } catch (Exception e) when (e is NpgsqlException or TimeoutException or IOException) {
            Trouble(e);
            await LetGoAsync();
            throw new Unavailable();
        } finally { _telling.Release(); }

        static Change ChangeOf(NpgsqlDataReader row) => new(row.GetInt64(0), row.GetString(1), row.IsDBNull(2) ? null : row.GetString(2),
            row.IsDBNull(3) ? null : row.GetString(3), Sql.Time(row, 4), row.IsDBNull(5) ? null : row.GetString(5));
    }
    /// <summary>Drops those that were told of. Numbers are given before COMMIT, so a lower one may appear later than a higher one; it
    /// is told later, and not dropped unheard. Those of one address come in order, for its row is locked meanwhile.</summary>
    public async Task DropChangesAsync(long upTo) {
        await _telling.WaitAsync();
        try {
            if (_teller is null) return;
            await ReadAsync(_teller, "delete from changes where number = any($1)", _ => 0,
                [P(_told.Where(number => number <= upTo).ToArray())]);
        } catch (Exception e) when (e is NpgsqlException or TimeoutException or IOException) {
            Trouble(e);
            await LetGoAsync();
            throw new Unavailable();
        } finally { _telling.Release(); }
    }

    // The lock goes with its connection, so that is closed, and any that may hold it is not used again.
    async Task LetGoAsync() {
        source.Clear();
        if (_teller is not { } teller) return;
        (_teller, _told) = (null, []);
        await teller.DisposeAsync();
    }

    // ---- Forgetting

    /// <summary>Forgets a person: first what is known, under the locks of a commit; then every text that names them, by a scan of the
    /// tables, which takes as long as they are large; and their events last, so that to ask again finishes what was interrupted.</summary>
    public async Task<Commit> ForgetAsync(string address) {
        address = PreparedEntry.Clean(address);
        await _forgetting.WaitAsync(); // it may take long, and needs a connection
        try {
            for (int attempt = 1; ; attempt++)
                try {
                    await ForgetKnownAsync(address);
                    await ForgetEventsAsync(address);
                    return Commit.Kept;
                } catch (Exception e) when (e is NpgsqlException or TimeoutException or IOException or JsonException or Overtaken) {
                    if (!IsWorthAnother(e, attempt > 4)) return Trouble(e);
                }
        } finally { _forgetting.Release(); }
    }
    async Task ForgetKnownAsync(string address) {
        await using var connection = await source.OpenConnectionAsync();
        var batch = await BeginAsync(connection, [PreparedEntry.Of(new Entry(default, Lift: new(address)))], 0, batch => batch.Lock());
        await CommitAsync(connection, batch.Forget(address));
    }
    // What comes meanwhile is new, and stays.
    async Task ForgetEventsAsync(string address) {
        await using var connection = await source.OpenConnectionAsync();
        var (events, spellings) = (new List<(string Table, Guid[] Ids)>(), new List<string> { address });
        foreach (var table in Sql.Tables) {
            var found = await ReadAsync(connection, $"select id, recipient from {table.Name} where email = $1",
                row => (row.GetGuid(0), row.GetString(1)), [P(address)], patient: true);
            events.Add((table.Name, [.. found.Select(each => each.Item1)]));
            spellings.AddRange(found.Select(each => each.Item2));
        }
        var names = new PersonNames(spellings);
        foreach (var (table, columns) in Sql.Texts) await ScrubAsync(connection, table, columns, names, address);
        await ScrubKnownAsync(connection, names);
        foreach (var (table, ids) in events)
            await ReadAsync(connection, $"delete from {table} where id = any($1)", _ => 0, [P(ids)], patient: true);
    }

    // A row is changed only as it was read: who forgets somebody else meanwhile would have the person back otherwise. Then it is read again.
    static async Task ScrubAsync(NpgsqlConnection connection, string table, string[] columns, PersonNames names, string address) {
        // What comes meanwhile is new, and stays.
        if (await ReadAsync(connection, $"select id from {table} order by id desc limit 1", row => row.GetGuid(0), []) is not [var last]) return;
        for (var after = Guid.Empty; ;) {
            var found = await ReadAsync(connection, Sql.Naming(table, columns),
                row => (Id: row.GetGuid(0), Texts: columns.Select((_, i) => row.IsDBNull(i + 1) ? null : row.GetString(i + 1)).ToArray()),
                [P(after), P(names.Patterns), P(address), P(last)], patient: true);
            bool all = true;
            foreach (var (id, texts) in found) {
                string?[] rest = [.. texts.Select((text, i) =>
                    text is null ? null : Sql.IsJson(columns[i]) ? names.WithoutJson(text) : names.Without(text))];
                if (rest.SequenceEqual(texts)) continue;
                // An envelope cannot be changed without breaking its signature, so its text goes; its id stays, to know a retry by.
                if (table == "entries") rest = [null];
                all &= await ReadAsync(connection, Sql.Rewrite(table, columns), row => row.GetGuid(0),
                    [P(id), .. rest.Concat(texts).Select(PostgresBatch.Text)]) is [_];
            }
            if (found.Count == 0) break;
            if (all) after = found[^1].Id;
        }
    }
    // What is known of others may quote the person. It is changed only as it was read; what a commit changes meanwhile is read again.
    static async Task ScrubKnownAsync(NpgsqlConnection connection, PersonNames names) {
        for (string after = ""; ;) {
            var found = await ReadAsync(connection, Sql.NamingKnown, row => (Email: row.GetString(0), Json: row.IsDBNull(1) ? null : row.GetString(1)),
                [P(after), P(names.Patterns)], patient: true);
            bool all = true;
            foreach (var (email, json) in found)
                if (json is not null && PostgresBatch.KnownOf(json) is var known && names.Without(known) is var rest && rest != known)
                    all &= await ReadAsync(connection, Sql.RewriteKnown, _ => 0, [P(email), P(PostgresBatch.JsonOf(rest)), P(json)]) is [_];
            if (found.Count == 0) break;
            if (all) after = found[^1].Email;
        }
    }
}

/// <summary>An entry as the tables take it: its id, its line (UTF-8), and its events without what PostgreSQL's text and jsonb cannot hold. The
/// line holds everything unharmed; null when messages are not kept, and this is one that has events.</summary>
sealed partial record PreparedEntry(Entry Entry, Guid Id, byte[]? Line, (Guid Id, Feedback Feedback)[] Events,
    string? Unread, int Simplified = 0) {
    /// <summary>Nearly, in bytes of the line or characters of the message: each event of a message carries its `mail`.</summary>
    public long Length => (long)(Line?.Length ?? Entry.Message!.Message.Length) * Math.Max(1, Events.Length);
    public static PreparedEntry Of(Entry entry, bool keepsMessages = true) {
        Feedback[] feedback = Bounded(Clean([.. entry.Event.Feedback]));
        byte[]? line = keepsMessages || feedback.Length == 0 ? LineOf(entry) : null;
        // The same for every delivery of a message, whichever receiver it comes to, and whenever.
        byte[] name = entry.Message is { } message ? Encoding.UTF8.GetBytes($"{message.TopicArn}\n{message.MessageId}\n{message.Message}") : line!;
        long time = feedback is [var first, ..] ? first.SentAt : TimeOf(entry).ToUnixTimeMilliseconds();
        return new(entry, global::Feedback.SortKeyOf(time, SHA256.HashData(name)), line,
            Array.ConvertAll(feedback, each => (each.PrimaryKey, each)), entry.Refused?.Why ?? entry.Event.Unread);
    }
    // What nobody signed, as from a queue with raw delivery, has no time of its own.
    static DateTimeOffset TimeOf(Entry entry) => entry.Message switch {
        null => entry.At,
        { Signature.Length: > 0 } signed => Iso8601.Read(signed.Timestamp) ?? DateTimeOffset.UnixEpoch,
        _ => DateTimeOffset.UnixEpoch,
    };
    static byte[] LineOf(Entry entry) => JsonSerializer.SerializeToUtf8Bytes(entry, SnsJson.Lines.Entry);
    /// <summary>The same with JSON as a string and texts of 250 characters, then without events, as unread; null when there is nothing left to leave out.</summary>
    public PreparedEntry? Simpler(string why) => Simplified switch {
        0 => this with {
            Simplified = 1,
            Events = Array.ConvertAll(Events, each => (each.Id, each.Feedback with {
                Mail = Quoted(each.Feedback.Mail),
                Tags = null,
                Detail = Short(each.Feedback.Detail),
                Subject = Short(each.Feedback.Subject),
                Status = Short(each.Feedback.Status),
                Source = Short(each.Feedback.Source),
                ConfigurationSet = Short(each.Feedback.ConfigurationSet),
            })),
        },
        1 => this with { Simplified = 2, Events = [], Line = LineOf(Entry), Unread = $"PostgreSQL cannot hold it ({why})" },
        _ => null,
    };

    /// <summary>Calls back for each address of which this may change what is known, in order, with what follows from what was known.</summary>
    public void Judge(int softBounceLimit, Action<string, Func<Known, Known>> update) {
        foreach (var (_, feedback) in Events) update(feedback.Address, known => Judgement.Of(feedback, known, softBounceLimit));
        if (Entry.Suppress is { } manual) {
            var clean = manual with { Note = CleanOrNull(manual.Note) };
            update(Clean(manual.Address), known => Judgement.Of(clean, Entry.At, known));
        }
        if (Entry.Lift is { } lift) update(Clean(lift.Address), known => Judgement.Lifted(Entry.At, known));
        if (Entry.Forget is { Known: { } kept } forget) update(Clean(forget.Alias), _ => kept);
    }

    // SNS sends 256 KiB and SES names fifty recipients at most. More than both allow would take PostgreSQL longer than SNS waits, so what
    // the mail says lies beside the first event alone, and in `entries`.
    static Feedback[] Bounded(Feedback[] feedback) => feedback.Sum(each => each.Mail?.Length ?? 0L) <= 50 * (256L << 10) ? feedback
        : [feedback[0], .. feedback.Skip(1).Select(each => each with { Mail = null, Tags = null, Subject = null })];
    // A text that many events share is cleaned once, and shared by them.
    static Feedback[] Clean(Feedback[] feedback) {
        var cleaned = feedback.Length < 2 ? null : new Dictionary<string, string>(ReferenceEqualityComparer.Instance);
        string? Once(string? text, Func<string, string> clean) => text is null ? null : cleaned is null ? clean(text)
            : cleaned.TryGetValue(text, out string? known) ? known : cleaned[text] = clean(text);
        string? Text(string? text) => Once(text, Clean);
        return Array.ConvertAll(feedback, each => each with {
            Kind = Text(each.Kind)!,
            Address = Text(each.Address)!,
            Recipient = Text(each.Recipient)!,
            Type = Text(each.Type),
            SubType = Text(each.SubType),
            Status = Text(each.Status),
            Detail = Text(each.Detail),
            MailId = Text(each.MailId),
            Subject = Text(each.Subject),
            Source = Text(each.Source),
            ConfigurationSet = Text(each.ConfigurationSet),
            Tags = Once(each.Tags, CleanJson),
            Mail = Once(each.Mail, CleanJson),
        });
    }
    /// <summary>Text that PostgreSQL can hold: U+FFFD where there was U+0000 or half a surrogate pair.</summary>
    public static string Clean(string text) {
        if (text.Contains('\0')) text = text.Replace('\0', '\ufffd');
        return text.AsSpan().ContainsAnyInRange('\ud800', '\udfff') ? Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)) : text;
    }
    static string? CleanOrNull(string? text) => text is null ? null : Clean(text);
    static string CleanJson(string json) {
        if (json.Contains(@"\u0000", Ordinal)) json = Unholdable.Replace(json, each => each.Groups["not"].Success ? @"\ufffd" : each.Value);
        return !Exponent.IsMatch(json) ? json
            : Vast.Replace(json, each => each.Groups["number"].Success ? $"\"{each.Value}\"" : each.Value);
    }
    // What an index of the operator's own holds (of a row, a third of a page at most) or a narrower column.
    static string? Short(string? text) => text is { Length: > 250 } ? Clean(text[..250]) : text;
    static string? Quoted(string? json) => json is null ? null : '"' + JsonEncodedText.Encode(json, Receiver.Relaxed).ToString() + '"';
    // What jsonb refuses, besides half an emoji (see SesEvent.Whole). An escaped backslash is passed over as it is.
    [GeneratedRegex(@"\\\\|(?<not>\\u0000)")] static partial Regex Unholdable { get; }
    // What jsonb takes in eight bytes and prints in 131,072: a number with an exponent of three digits becomes a string. In a string such
    // letters are harmless, and there the first of these may be wrong; it only is the faster.
    [GeneratedRegex(@"[:,\[\s]-?[0-9][0-9.]*[eE][+-]?[0-9]{3}")] static partial Regex Exponent { get; }
    [GeneratedRegex("""
        "(?:[^"\\]|\\.)*"|(?<number>(?<![0-9.])-?[0-9][0-9.]*[eE][+-]?[0-9]{3,})
        """)]
    static partial Regex Vast { get; }
}

/// <summary>One transaction's worth: what is inserted first, and what follows from that, once PostgreSQL has told what was new and
/// what is known of the addresses, whose rows are then locked.</summary>
sealed class PostgresBatch {
    readonly List<PreparedEntry> _entries;
    readonly Dictionary<Guid, Feedback> _events = [];
    readonly SortedDictionary<string, string> _aliases = new(StringComparer.Ordinal); // of each address that may change
    readonly SortedSet<string> _empty = new(StringComparer.Ordinal);
    readonly Dictionary<string, Known> _known = new(StringComparer.Ordinal), _guessed = new(StringComparer.Ordinal);
    readonly HashSet<string> _made = []; // rows of addresses that had none
    readonly HashSet<Guid> _inserted = [];
    readonly List<Guid> _unwanted = []; // of a message that was there, though its events were not: they were forgotten, or dropped
    readonly SortedSet<string> _changed = new(StringComparer.Ordinal);
    readonly SortedDictionary<string, long> _daily = new(StringComparer.Ordinal), _hourly = new(StringComparer.Ordinal),
        _totals = new(StringComparer.Ordinal);
    readonly List<(string Address, Known Before, Known After, DateTimeOffset At)> _changes = [];
    readonly SortedDictionary<string, TopicState> _topics = new(StringComparer.Ordinal);
    readonly Dictionary<string, (HashSet<Guid> All, HashSet<Guid> Tagged)> _again = []; // by topic: events that were there, and of those what came with tags
    readonly Dictionary<string, DateTimeOffset> _toRemember = [];
    readonly int _softBounceLimit;
    int _returning; // so many results tell ids
    const int MostRows = 64; // of a statement: to come to a text in an array, PostgreSQL goes through those before it

    /// <summary>The key under which forgotten people are known, as it was read with the rows; null when no row was needed.</summary>
    public string? ForgetKey { get; private set; }

    public PostgresBatch(IReadOnlyList<PreparedEntry> entries, int softBounceLimit, Func<string, string> alias) {
        (_entries, _softBounceLimit) = ([.. entries.DistinctBy(each => each.Id)], softBounceLimit);
        void MayChange(string address) { if (_guessed.TryAdd(address, Known.Nothing)) _aliases[address] = alias(address); }
        foreach (var entry in _entries) {
            foreach (var (id, feedback) in entry.Events) {
                _events.TryAdd(id, feedback);
                // What changes nothing for an address of which nothing is known never changes anything.
                if (!ReferenceEquals(Judgement.Of(feedback, Known.Nothing, softBounceLimit), Known.Nothing))
                    MayChange(feedback.Address);
            }
            if ((entry.Entry.Suppress?.Address ?? entry.Entry.Lift?.Address ?? entry.Entry.Forget?.Alias) is { } address)
                MayChange(PreparedEntry.Clean(address));
        }
        foreach (var entry in _entries)
            entry.Judge(softBounceLimit,
                (address, judge) => { if (_guessed.TryGetValue(address, out var known)) _guessed[address] = judge(known); });
    }

    public static Known KnownOf(string json) => json == "{}" ? Known.Nothing
        : JsonSerializer.Deserialize(json, SnsJson.Default.Known) ?? throw new JsonException("null is nothing that is known");
    public static string JsonOf(Known known) => JsonSerializer.Serialize(known, SnsJson.Lines.Known);
    static NpgsqlParameter<T> P<T>(T value) => PostgresStore.P(value);
    static NpgsqlBatchCommand Command(string sql, params NpgsqlParameter[] parameters) {
        var command = new NpgsqlBatchCommand(sql);
        foreach (var parameter in parameters) command.Parameters.Add(parameter);
        return command;
    }

    /// <summary>Entries and events, each told back if it was new, and the rows of the addresses, locked.</summary>
    public IEnumerable<NpgsqlBatchCommand> Insert() {
        foreach (var (insert, columns) in Inserts()) {
            _returning++;
            yield return Command(insert + " on conflict (id) do nothing returning id", columns);
        }
        foreach (var command in Lock()) yield return command;
    }
    /// <summary>The same, guessed to be all new, and judged so. It fails, for its key or dividing by zero, when something was there, or when
    /// an address is known under a hash, which is looked for once its row is held.</summary>
    public IEnumerable<NpgsqlBatchCommand> Guess(byte[] forgetKey) {
        foreach (var entry in _entries) _inserted.Add(entry.Id);
        foreach (var id in _events.Keys) _inserted.Add(id);
        foreach (string address in _aliases.Keys) {
            _made.Add(address);
            _known[address] = Known.Nothing;
        }
        Judge();
        foreach (var (insert, columns) in Inserts()) yield return Command(insert, columns);
        if (_aliases.Count == 0) yield break;
        yield return Command(Sql.MakeAllSuppressions, [.. ColumnsOf([.. _aliases.Keys], _guessed), P((long)_aliases.Count)]);
        yield return Command(Sql.FailIfForgotten, P<string[]>([.. _aliases.Values]), P(Convert.ToHexStringLower(forgetKey)));
    }
    // In the order in which everybody inserts, table by table and by key.
    IEnumerable<(string Insert, NpgsqlParameter[] Columns)> Inserts() {
        foreach (var entries in _entries.OrderBy(each => each.Id).Chunk(MostRows))
            yield return (Sql.InsertEntries, [P(Array.ConvertAll(entries, each => each.Id)),
                P(Array.ConvertAll(entries, each => each.Entry.At.UtcDateTime)), Utf8(Array.ConvertAll(entries, each => each.Line))]);
        foreach (var table in Sql.Tables)
            foreach (var events in _events.Where(each => table.Holds(each.Value.Kind)).OrderBy(each => each.Key).Chunk(MostRows))
                yield return (table.Insert, [P(Array.ConvertAll(events, each => each.Key)),
                    P(Array.ConvertAll(events, each => each.Value.SortKey)),
                    P(Array.ConvertAll(events, each => each.Value.At.UtcDateTime)),
                    P(Array.ConvertAll(events, each => each.Value.Possible)),
                    .. table.Texts.Select(text => P(Array.ConvertAll(events, each => text.Of(each.Value))))]);
    }
    /// <summary>A row for each address, and then all of them locked, in the order of their keys: with the aliases under which a
    /// forgotten person is known. A row that is made holds a guess, that the address is new, and its events too; so it mostly is
    /// written once.</summary>
    public IEnumerable<NpgsqlBatchCommand> Lock() {
        if (_aliases.Count == 0) yield break;
        yield return Command(Sql.MakeSuppressions + " returning email", ColumnsOf([.. _aliases.Keys], _guessed));
        yield return Command(Sql.Lock, P<string[]>([.. _aliases.Keys.Concat(_aliases.Values).Order(StringComparer.Ordinal)]));
    }

    public async Task ReadInsertedAsync(NpgsqlDataReader reader) {
        for (; _returning > 0; _returning--) {
            while (await reader.ReadAsync()) _inserted.Add(reader.GetGuid(0));
            await reader.NextResultAsync();
        }
        if (_aliases.Count == 0) return;
        while (await reader.ReadAsync()) _made.Add(reader.GetString(0));
        await reader.NextResultAsync();
        while (await reader.ReadAsync())
            if (reader.IsDBNull(0)) ForgetKey = reader.GetString(1);
            else _known[reader.GetString(0)] = _made.Contains(reader.GetString(0)) ? Known.Nothing : KnownOf(reader.GetString(1));
    }
    /// <summary>False when a row went between its insert and its lock.</summary>
    public bool LockedAll => _aliases.Count == 0
        || (ForgetKey is not null && _aliases.All(each => _known.ContainsKey(each.Key) || _known.ContainsKey(each.Value)));

    public bool HasNew => _entries.Exists(each => _inserted.Contains(each.Id));

    /// <summary>Counts and judges what was new.</summary>
    public void Judge() {
        var fresh = _entries.Where(each => _inserted.Contains(each.Id)).ToList();
        var named = fresh.SelectMany(each => each.Events).Select(each => each.Id).ToHashSet();
        foreach (var (id, feedback) in _events) {
            if (!_inserted.Contains(id)) continue;
            if (!named.Contains(id)) {
                _unwanted.Add(id);
                continue;
            }
            Add(_daily, PreparedEntry.Clean(Count.KeyOf(feedback, Count.Day)), 1);
            Add(_hourly, PreparedEntry.Clean(Count.KeyOf(feedback, Count.Hour)), 1);
        }
        foreach (var prepared in fresh) {
            prepared.Judge(_softBounceLimit, (address, judge) => Update(address, prepared.Entry.At, judge));
            if (prepared.Entry.Message is { } message) See(prepared, message);
        }
        foreach (string address in _aliases.Keys) // a row that was made to be locked, and is not needed
            if (_known.TryGetValue(address, out var known) && ReferenceEquals(known, Known.Nothing)) _empty.Add(address);
        // Lists are equal to none but themselves.
        _changed.RemoveWhere(address => _made.Contains(address)
            && (_known[address] == _guessed[address] || JsonOf(_known[address]) == JsonOf(_guessed[address])));
    }

    void Update(string address, DateTimeOffset at, Func<Known, Known> judge) {
        if (!_aliases.TryGetValue(address, out string? alias)) return;
        if (_known.ContainsKey(alias)) UpdateRow(alias, at, judge);
        if (!_known.ContainsKey(alias) || !_made.Contains(address)) UpdateRow(address, at, judge);
    }
    void UpdateRow(string address, DateTimeOffset at, Func<Known, Known> judge) {
        if (!_known.TryGetValue(address, out var before) || (judge(before) is var after && ReferenceEquals(before, after))) return;
        _known[address] = after;
        _changed.Add(address);
        if (before.Reason != after.Reason) _changes.Add((address, before, after, at));
        if (before.Suppressed != after.Suppressed) Add(_totals, "suppressed", after.Suppressed ? 1 : -1);
        if (before.Suppressed || after.Suppressed) _totals["version"] = 1;
    }
    /// <summary>What is known of somebody by hash or by name. By both, when a receiver heard of them before `copy` told that a LiteDB
    /// receiver had forgotten them: then they are suppressed by either, and whatever comes concerns both.</summary>
    public static Known Either(Known? byHash, Known? byName) =>
        byName is null || byHash is { Suppressed: true } || (byHash is not null && !byName.Suppressed) ? byHash ?? Known.Nothing : byName;
    static void Add(SortedDictionary<string, long> counts, string key, long added) => counts[key] = counts.GetValueOrDefault(key) + added;

    void See(PreparedEntry prepared, Envelope message) {
        var (arn, at) = (message.TopicArn, prepared.Entry.At);
        var seen = _topics.GetValueOrDefault(arn) ?? new(arn, null, null, null, null, null, null);
        // Not new, though the message is: whether it came in the other format, of which one has tags, is seen by what is stored.
        bool doubled = prepared.Events.Any(each => (_events[each.Id].Tags is null) != (each.Feedback.Tags is null));
        foreach (var (id, feedback) in prepared.Events.Where(each => !_inserted.Contains(each.Id))) {
            if (!_again.TryGetValue(arn, out var again)) again = _again[arn] = ([], []);
            again.All.Add(id);
            if (feedback.Tags is not null) again.Tagged.Add(id);
        }
        _topics[arn] = seen with {
            ConfirmedAt = message.Type == Envelope.SubscriptionConfirmation ? at : seen.ConfirmedAt,
            UnsubscribedAt = message.Type == Envelope.UnsubscribeConfirmation ? at : seen.UnsubscribedAt,
            ValidatedAt = prepared.Entry.Event.Validates ? at : seen.ValidatedAt,
            DoubledAt = doubled ? at : seen.DoubledAt,
            LastAt = at,
            SignatureVersion = message.SignatureVersion,
        };
    }

    /// <summary>What follows, in the order in which everybody locks.</summary>
    public IEnumerable<NpgsqlBatchCommand> Update(short shard, bool keepsChanges, ConcurrentDictionary<string, DateTimeOffset> seen) {
        // COMMIT waits for no disk and no standby when nothing was written; but what was written before is acknowledged now. This row is
        // locked after the others, and nobody who holds it waits for one of them.
        if (!HasNew)
            yield return Command("select from entries where id = $1 for no key update", P(_entries[0].Id));
        foreach (var table in Sql.Tables)
            if (_unwanted.FindAll(id => table.Holds(_events[id].Kind)) is { Count: > 0 } unwanted)
                yield return Command($"delete from {table.Name} where id = any($1)", P(unwanted.ToArray()));
        if (_changed.Count > 0) yield return Command(Sql.UpdateSuppressions, ColumnsOf([.. _changed], _known));
        if (_empty.Count > 0) yield return Command("delete from suppressions where email = any($1)", P<string[]>([.. _empty]));
        (string Table, SortedDictionary<string, long> Counts)[] counters = [("daily", _daily), ("hourly", _hourly), ("totals", _totals)];
        foreach (var (table, counts) in counters)
            if (counts.Count > 0)
                yield return Command(Sql.Add(table), P<string[]>([.. counts.Keys]), P<long[]>([.. counts.Values]), P(shard));
        // Once a second and receiver, or everybody would wait for one row.
        foreach (var topic in _topics.Values.Where(topic => IsDue(topic, seen)))
            yield return Command(Sql.See, P(topic.TopicArn),
                Time(topic.ConfirmedAt), Time(topic.UnsubscribedAt), Time(topic.ValidatedAt), Time(topic.LastAt),
                P(topic.SignatureVersion!), Time(topic.DoubledAt),
                P<Guid[]>([.. _again.GetValueOrDefault(topic.TopicArn).All ?? []]), P<Guid[]>([.. _again.GetValueOrDefault(topic.TopicArn).Tagged ?? []]));
        foreach (var each in _entries.Where(each => each.Unread is not null && _inserted.Contains(each.Id)))
            yield return Command(
                "insert into unread (id, at, topic_arn, why, message) values ($1, $2, $3, $4, $5) on conflict (id) do nothing",
                P(each.Id), P(each.Entry.At.UtcDateTime), Text(each.Entry.Message?.TopicArn),
                Text(each.Unread), Text(each.Entry.Message?.Message ?? each.Entry.Refused?.Body));
        if (keepsChanges)
            foreach (var (address, before, after, at) in _changes.Where(each => !each.Address.StartsWith("forgotten:", Ordinal)
                && !each.Address.StartsWith("sha256:", Ordinal))) // no application knows such an address
                yield return Command("insert into changes (address, before, reason, at, event) values ($1, $2, $3, $4, $5)",
                    P(address), Text(before.Reason), Text(after.Reason), P(at.UtcDateTime), Text(after.Event));
    }

    // Of `suppressions`.
    static NpgsqlParameter[] ColumnsOf(string[] addresses, Dictionary<string, Known> known) => [P(addresses),
        P(Array.ConvertAll(addresses, address => known[address].Reason)),
        P(Array.ConvertAll(addresses, address => known[address].Suppressed ? known[address].Since.UtcDateTime : (DateTime?)null)),
        P(Array.ConvertAll(addresses, address => JsonOf(known[address])))];

    bool IsDue(TopicState topic, ConcurrentDictionary<string, DateTimeOffset> seen) {
        bool due = false;
        string?[] keys = [topic.TopicArn + topic.SignatureVersion,
            topic.DoubledAt is null && !_again.ContainsKey(topic.TopicArn) ? null : topic.TopicArn + " doubled"];
        foreach (string? key in keys)
            if (key is not null
                && !(seen.TryGetValue(key, out var before) && topic.LastAt < before.AddSeconds(1) && topic.LastAt >= before))
                (due, _toRemember[key]) = (true, topic.LastAt!.Value);
        return due || (topic.ConfirmedAt ?? topic.UnsubscribedAt ?? topic.ValidatedAt) is not null;
    }
    /// <summary>After COMMIT: what need not be written again within a second.</summary>
    public void Remember(ConcurrentDictionary<string, DateTimeOffset> seen) {
        foreach (var (key, at) in _toRemember) seen[key] = at;
    }
    static NpgsqlParameter<byte[]?[]> Utf8(byte[]?[] texts) => new() {
        TypedValue = texts,
        NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Array | NpgsqlTypes.NpgsqlDbType.Text,
    };
    public static NpgsqlParameter<string?> Text(string? text) => new() {
        TypedValue = text is null ? null : PreparedEntry.Clean(text),
        NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Text,
    };
    static NpgsqlParameter<DateTime?> Time(DateTimeOffset? at) => new() {
        TypedValue = at?.UtcDateTime,
        NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.TimestampTz,
    };

    /// <summary>The person's row gives way to one under the alias, which keeps the suppression and no word of it.</summary>
    public IEnumerable<NpgsqlBatchCommand> Forget(string address) {
        string alias = _aliases[address];
        var (byHash, byName) = (_known.GetValueOrDefault(alias), _known.GetValueOrDefault(address));
        var known = Either(byHash, byName);
        const string because = "It was suppressed before its owner asked to be forgotten.";
        _known[alias] = known with {
            Because = known.Suppressed ? because : null,
            SoftBecause = known.SoftBecause is null ? null : because,
            Event = null,
            Note = null,
            DeliveredAt = default,
            DeliveredMails = null,
            SoftBounces = null,
        };
        yield return Command("delete from suppressions where email = $1", P(address));
        if (_known[alias] != Known.Nothing || byHash is not null) yield return Command(Sql.UpdateSuppressions, ColumnsOf([alias], _known));
        long twice = byHash is { Suppressed: true } && byName is { Suppressed: true } ? 1 : 0;
        yield return Command(Sql.Add("totals"), P<string[]>(["suppressed", "version"]), P<long[]>([-twice, 1]), P((short)0));
        yield return Command("delete from changes where address = $1", P(address));
    }
}

/// <summary>The tables of events, and what is asked of PostgreSQL.</summary>
static class Sql {
    /// <summary>A table of events: what it calls the time, and its columns of text.</summary>
    public sealed record Table(string Name, string Time, Func<string, bool> Holds, (string Column, Func<Feedback, string?> Of)[] Texts) {
        public string Insert { get; } = $"""
            insert into {Name} (id, sort_key, {Time}, possible, {string.Join(", ", Texts.Select(text => text.Column))})
            select $1[i], $2[i], $3[i], $4[i], {string.Join(", ", Texts.Select((text, i) => $"${i + 5}[i]{(text.Column is "mail" or "tags" ? "::jsonb" : "")}"))}
            from generate_subscripts($1, 1) as i
            """;
        public bool HasMail => Texts[^1].Column == "mail";
    }

    static readonly (string, Func<Feedback, string?>)[] Common = [
        ("email", each => each.Address), ("recipient", each => each.Recipient),
        ("type", each => each.Type), ("subtype", each => each.SubType),
        ("status", each => each.Status), ("detail", each => each.Detail),
        ("mail_id", each => each.MailId), ("subject", each => each.Subject),
        ("source", each => each.Source), ("configuration_set", each => each.ConfigurationSet),
        ("sns_message_id", each => each.SnsMessageId), ("tags", each => each.Tags),
    ];
    /// <summary>In the order in which everybody writes them.</summary>
    public static readonly Table[] Tables = [
        new("email_bounces", "bounced_at", kind => kind == SesEvent.Bounce, [.. Common, ("mail", each => each.Mail)]),
        new("email_complaints", "complained_at", kind => kind == SesEvent.Complaint, [.. Common, ("mail", each => each.Mail)]),
        new("email_events", "at", kind => kind is not (SesEvent.Bounce or SesEvent.Complaint), [.. Common, ("kind", each => each.Kind)]),
    ];
    /// <summary>Where somebody may be named, besides `suppressions`. What makes an event's id, and the address, are left.</summary>
    public static readonly (string Table, string[] Columns)[] Texts = [
        ("entries", ["entry"]), ("unread", ["message"]),
        .. Tables.Select(table => (table.Name, table.Texts.Select(text => text.Column)
            .Except(["email", "kind", "type", "mail_id", "sns_message_id"]).ToArray())),
    ];
    public static bool IsJson(string column) => column is "entry" or "message" or "tags" or "mail";

    const string ForgetKey = "select null as email, value as known from meta where name = 'forget_key' union all\n";
    // Where a hand changed one of the two, neither is believed: nothing reads `null`.
    const string Known = "case when s.reason is not distinct from s.known ->> 'Reason' then s.known::text else 'null' end";
    const string InsertSuppressions = """
        insert into suppressions (email, reason, since, known) select email, reason, since, known::jsonb
        from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) as each (email, reason, since, known) on conflict (email) do
        """;
    // PostgreSQL would keep every column that unnest gives apart first, 0.04 ms for seventeen of them.
    public const string InsertEntries = "insert into entries (id, at, entry) select $1[i], $2[i], $3[i] from generate_subscripts($1, 1) as i",
        MakeSuppressions = InsertSuppressions + " nothing",
        // By a count, for of a key that is there PostgreSQL's log would tell whose address it is.
        MakeAllSuppressions = $"with made as ({MakeSuppressions} returning true) select 1 / (count(*) = $5)::int from made",
        UpdateSuppressions = InsertSuppressions + " update set reason = excluded.reason, since = excluded.since, known = excluded.known";
    public const string FailIfForgotten = """
        select 1 / (exists (select from meta where name = 'forget_key' and value = $2) and not exists (select from suppressions where email = any($1)))::int
        """,
        // One probe of the index for each address, whatever the planner believes of a table that was empty a minute ago; in the
        // order of the array.
        Find = ForgetKey + $"""
        select found.* from unnest($1::text[]) as each (email) cross join lateral (select s.email, {Known} from suppressions as s where s.email = each.email limit 1) as found
        """, Lock = ForgetKey + $"""
        select found.* from unnest($1::text[]) as each (email) cross join lateral (select s.email, {Known} from suppressions as s where s.email = each.email for update) as found
        """,
        // A failover or a backup that was put back may bring a number again under which something else was told; but not its server's start
        // and the ids of its database and its table.
        Version = """
        select concat_ws('-', (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
            (select oid from pg_database where datname = current_database()), 'totals'::regclass::oid, coalesce(sum(n), 0))
        from totals where name = 'version'
        """, Suppressions = $"""
        select email, {Known} from suppressions as s where email > $1 and reason is not null and email not like 'forgotten:%' order by email limit $2
        """, See = """
        insert into subscriptions as s (topic_arn, confirmed_at, unsubscribed_at, validated_at, last_at, signature_version, doubled_at)
        values ($1, $2, $3, $4, $5, $6, case when exists (select from (select id, tags from email_bounces union all select id, tags from email_complaints
        union all select id, tags from email_events) as e where e.id = any($8) and (e.tags is null) = (e.id = any($9))) then $5 else $7 end)
        on conflict (topic_arn) do update set confirmed_at = greatest(s.confirmed_at, excluded.confirmed_at),
        unsubscribed_at = greatest(s.unsubscribed_at, excluded.unsubscribed_at), validated_at = greatest(s.validated_at, excluded.validated_at),
        last_at = greatest(s.last_at, excluded.last_at), signature_version = excluded.signature_version, doubled_at = greatest(s.doubled_at, excluded.doubled_at)
        """;
    /// <summary>Adds to counters. Each is kept in parts, so that few receivers wait for another's COMMIT; its value is their sum.</summary>
    public static string Add(string table) => $"""
        insert into {table} as c ({(table == "totals" ? "name" : "key")}, shard, n) select key, $3, n from unnest($1::text[], $2::bigint[]) as each (key, n)
        on conflict ({(table == "totals" ? "name" : "key")}, shard) do update set n = c.n + excluded.n
        """;
    // So that no statement takes longer than it may, and holds back what vacuum would take, however large a table is.
    const string Read = "20000", Told = "1000";
    /// <summary>Of the rows after one and up to another, a few thousand: those that may name somebody, but not their own; and how far that
    /// went, without texts. None: there are no more.</summary>
    public static string Naming(string table, string[] columns) {
        string texts = string.Join(", ", columns.Select(column => column + "::text"));
        return $"with part as materialized (select * from {table} where id > $1 and id <= $4 order by id limit {Read}), "
            + $"hit as materialized (select id, {texts} from part where lower(concat_ws(' ', {texts}) collate \"C\") like any($2) "
            + $"{(columns.Length > 1 ? "and email <> $3 " : "")}order by id limit {Told}) select * from hit union all "
            + $"(select id, {string.Join(", ", columns.Select(_ => "null"))} from part where (select count(*) from hit) < {Told} order by id desc limit 1) order by id";
    }
    /// <summary>Of a row that still has the texts that were read, told back.</summary>
    public static string Rewrite(string table, string[] columns) => $"update {table} set {string.Join(", ",
        columns.Select((column, i) => $"{column} = ${i + 2}{(column is "mail" or "tags" ? "::jsonb" : "")}"))} where id = $1 and "
        + $"{string.Join(" and ", columns.Select((column, i) => $"{column}::text is not distinct from ${i + 2 + columns.Length}"))} returning id";
    /// <summary>Of whom something came since that could suppress them.</summary>
    public static string HeardSince(int softBounceLimit) => $"""
        select email from email_bounces where sort_key >= $1{(softBounceLimit > 0 ? "" : " and type = 'Permanent'")}
            union all select email from email_complaints where sort_key >= $1 and type is distinct from 'not-spam'
            union all select email from email_events where sort_key >= $1 and kind = 'Subscription'
        """;
    public static string IsHeardOf(string heardSince) => $"""
        select exists (select from ({heardSince}) as heard where email = $2) or exists (select from entries where id >= $3 and strpos(entry, $4) > 0)
        """;
    public const string IsForgetKey = "select value = $1 from meta where name = 'forget_key'";
    public const string NamingKnown = $"""
        with part as materialized (select email, known from suppressions where email > $1 order by email limit {Read}),
        hit as materialized (select email, known::text from part where lower(known::text collate "C") like any($2) order by email limit {Told})
        select * from hit union all (select email, null from part where (select count(*) from hit) < {Told} order by email desc limit 1) order by email
        """, RewriteKnown = """
        with changed as (update suppressions set known = $2::jsonb where email = $1 and known = $3::jsonb returning email)
        insert into totals as c (name, shard, n) select 'version', 0, 1 from changed on conflict (name, shard) do update set n = c.n + 1 returning n
        """;

    /// <summary>The newest events before a sort key, from one index for each table.</summary>
    public static (string Sql, NpgsqlParameter[] Parameters) Newest(EventQuery query, Guid highest, int count) {
        List<NpgsqlParameter> parameters = [PostgresStore.P(query.Lowest), PostgresStore.P(highest), PostgresStore.P(count)];
        var conditions = new StringBuilder("sort_key >= $1 and sort_key < $2");
        void Where(string condition, string? value) {
            if (value is null) return;
            parameters.Add(PostgresStore.P(PreparedEntry.Clean(value)));
            conditions.Append(CultureInfo.InvariantCulture,
                $" and {string.Format(CultureInfo.InvariantCulture, condition, "$" + parameters.Count)}");
        }
        Where("email = {0}", query.Address);
        if (query.Kind is not (SesEvent.Bounce or SesEvent.Complaint)) Where("kind = {0}", query.Kind);
        Where("type = {0}", query.Type);
        Where("subtype = {0}", query.SubType);
        Where("right(email, length({0})) = {0}", query.Domain is { } domain ? "@" + domain : null);
        Where("subject = {0}", query.Subject);
        Where("source = {0}", query.Source);
        Where("configuration_set = {0}", query.ConfigurationSet);
        if (query.Tag is { } tag) {
            Where("jsonb_typeof(tags -> {0}) = 'array'", tag.Name);
            Where($"exists (select from jsonb_array_elements_text(case jsonb_typeof(tags -> ${parameters.Count}) "
                + $"when 'array' then tags -> ${parameters.Count} else '[]' end) "
                + "as value where value = {0})", tag.Value);
        }
        var selects = Tables.Where(table => query.Kind is null || table.Holds(query.Kind)).Select(table => {
            string kind = table.HasMail ? $"'{(table.Holds(SesEvent.Bounce) ? SesEvent.Bounce : SesEvent.Complaint)}'" : "kind";
            // Of a mail, which is most of a row, only when it was sent is read by anybody.
            const string mail = "case when mail is not null then jsonb_build_object('timestamp', mail -> 'timestamp')::text end";
            return $"(select sort_key, {table.Time} as at, possible, "
                + $"{string.Join(", ", Common.Select(text => text.Item1 + (text.Item1 == "tags" ? "::text" : "")))}, "
                + $"{kind} as kind, {(table.HasMail ? mail : "null::text")} as mail from {table.Name} "
                + $"where {conditions} order by sort_key desc limit $3)";
        });
        return ($"select * from ({string.Join(" union all ", selects)}) as newest order by sort_key desc limit $3", [.. parameters]);
    }
    /// <summary>In UTC. Npgsql gives the infinities no zone, and by the zone of this machine the first would be before all time.</summary>
    public static DateTimeOffset Time(NpgsqlDataReader row, int column) => DateTime.SpecifyKind(row.GetFieldValue<DateTime>(column), DateTimeKind.Utc);
    /// <summary>A row of <see cref="Newest"/>.</summary>
    public static (Guid Key, Feedback Feedback) EventOf(NpgsqlDataReader row) {
        string? Text(int column) => row.IsDBNull(column) ? null : row.GetString(column);
        return (row.GetGuid(0), new(Text(15)!, Text(3)!, Text(4)!, Time(row, 1), Text(5), Text(6), Text(7), Text(8),
            row.GetBoolean(2), Text(9), Text(10), Text(11), Text(12), Text(14), Text(16), Text(13)!));
    }
}

/// <summary>The tables, made and migrated at the start.</summary>
static class PostgresSchema {
    /// <summary>The advisory lock under which one receiver at a time migrates; the one that tells of changes holds the next number, mixed
    /// with the id of their table, for a database may hold several schemas of ours.</summary>
    public const long Lock = 0x5345_5346_4242_0001;

    // Keys begin with a time (see PreparedEntry.KeyOf), so inserts go to the right edge of each index whatever the size of the
    // table. Duplicates are told by the primary key alone. email_events can be partitioned by ranges of id, since that is in its
    // key; it is not, until somebody drops whole months: see README.md.
    const string First = """
        create table entries (id uuid primary key, at timestamptz not null, entry text);
        create table email_bounces (id uuid primary key, sort_key uuid not null, email text collate "C" not null, bounced_at timestamptz not null, type text,
            subtype text, status text, detail text, recipient text not null, possible boolean not null, mail_id text, subject text, source text,
            configuration_set text, sns_message_id text not null, tags jsonb, mail jsonb);
        create table email_complaints (id uuid primary key, sort_key uuid not null, email text collate "C" not null, complained_at timestamptz not null, type text,
            subtype text, status text, detail text, recipient text not null, possible boolean not null, mail_id text, subject text, source text,
            configuration_set text, sns_message_id text not null, tags jsonb, mail jsonb);
        create table email_events (id uuid primary key, sort_key uuid not null, email text collate "C" not null, at timestamptz not null, kind text not null,
            type text, subtype text, status text, detail text, recipient text not null, possible boolean not null, mail_id text, subject text, source text,
            configuration_set text, sns_message_id text not null, tags jsonb);
        create index on email_bounces (sort_key);
        create index on email_bounces (email, sort_key);
        create index on email_complaints (sort_key);
        create index on email_complaints (email, sort_key);
        create index on email_events (sort_key);
        create index on email_events (email, sort_key);
        create table suppressions (email text collate "C" primary key, reason text, since timestamptz, known jsonb not null);
        create table daily (key text collate "C", shard smallint, n bigint not null, primary key (key, shard));
        create table hourly (key text collate "C", shard smallint, n bigint not null, primary key (key, shard));
        create table totals (name text collate "C", shard smallint, n bigint not null, primary key (name, shard));
        create table unread (id uuid primary key, at timestamptz not null, topic_arn text, why text not null, message text);
        create table subscriptions (topic_arn text primary key, confirmed_at timestamptz, unsubscribed_at timestamptz, validated_at timestamptz,
            last_at timestamptz, signature_version text, doubled_at timestamptz);
        create table changes (number bigint generated always as identity primary key, address text not null, before text, reason text, at timestamptz not null, event text);
        """;
    // Several times cheaper than the default, where PostgreSQL (14 or newer) has it.
    const string Compression = """
        do $$ begin
            alter table entries alter entry set compression lz4;
            alter table email_bounces alter mail set compression lz4;
            alter table email_complaints alter mail set compression lz4;
        exception when others then null; end $$
        """;

    /// <summary>Makes what is missing, one receiver at a time. Returns the key under which forgotten people are known.</summary>
    /// <exception cref="Refusal">A newer program has made the tables.</exception>
    public static async Task<byte[]> MigrateAsync(NpgsqlDataSource source, CancellationToken cancellation) {
        await using var connection = await source.OpenConnectionAsync(cancellation);
        await using var transaction = await connection.BeginTransactionAsync(cancellation);
        async Task<object?> RunAsync(string sql, params NpgsqlParameter[] parameters) {
            await using var command = new NpgsqlCommand(sql, connection) { CommandTimeout = 0 };
            foreach (var parameter in parameters) command.Parameters.Add(parameter);
            return await command.ExecuteScalarAsync(cancellation);
        }
        if (await RunAsync("select current_setting('server_encoding')") is not "UTF8")
            throw new Refusal("ConnectionStrings:Feedback: the database must be of encoding UTF8, for what SES says is");
        await RunAsync("select pg_advisory_xact_lock($1)", PostgresStore.P(Lock));
        // Somebody else may have a `meta` on the search path: ours lies beside its sisters. Where it is there, nobody need be allowed to make it.
        if (await RunAsync("select count(distinct relnamespace) = 1 and count(*) = 2 from pg_class where oid in (to_regclass('meta'), to_regclass('totals'))") is false)
            await RunAsync("create table meta (name text primary key, value text not null)");
        string? version = (string?)await RunAsync("select value from meta where name = 'schema'");
        if (version is not null && int.Parse(version, CultureInfo.InvariantCulture) > PostgresStore.Schema)
            throw new Refusal($"ConnectionStrings:Feedback: the tables are of schema {version}, "
                + $"and this program knows {PostgresStore.Schema}: run the newer one");
        if (version is null) {
            await RunAsync(First);
            await RunAsync(Compression);
            await RunAsync("insert into meta values ('schema', $1), ('forget_key', $2)",
                PostgresStore.P(PostgresStore.Schema.ToString(CultureInfo.InvariantCulture)),
                PostgresStore.P(Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32))));
        }
        string key = (string)(await RunAsync("select value from meta where name = 'forget_key'"))!;
        await transaction.CommitAsync(cancellation);
        return Convert.FromHexString(key);
    }
}

/// <summary>How somebody is spelled, to be found in texts and taken out of them: as an address in whatever letters, percent-encoded, and
/// as a bounce address carries it (jane=example.com); but not within somebody else's.</summary>
sealed partial class PersonNames {
    readonly Regex _names;
    public PersonNames(IEnumerable<string> spellings) {
        string[] names = [.. spellings.Select(each => each.Trim().TrimEnd('>').Split('<')[^1].Trim().ToLowerInvariant())
            .Where(each => each.Length > 0).SelectMany(Forms).Distinct()];
        Patterns = [.. names.Select(name => $"%{Marks.Replace(name, "%")}%").Distinct(), @"%\\u00%"];
        string all = string.Join('|', names.Select(name => Any(name, "@")).Select(name => $@"(?<![+-]|%2[bd]){name}")
            .Concat(names.Where(name => name.Contains('@')).Select(name => Any(name, "="))));
        _names = new($@"(?:(?<=%(?:0[9ad]|2[0267-9bcdf]|3[abcdf]|5[bd]|7c))|(?<![\p{{L}}\p{{N}}._%]))(?:{all})(?![\p{{L}}\p{{N}}]|[._-][\p{{L}}\p{{N}}])",
            RegexOptions.IgnoreCase | RegexOptions.CultureInvariant, TimeSpan.FromSeconds(5));
    }
    static IEnumerable<string> Forms(string name) {
        int domain = name.LastIndexOf('@') + 1;
        string unicode = name;
        try { unicode = name[..domain] + new IdnMapping().GetUnicode(name, domain); } catch (ArgumentException) { } // no such domain, then
        return [name, unicode, name.Normalize(NormalizationForm.FormD), unicode.Normalize(NormalizationForm.FormD)];
    }
    static string Any(string name, string at) => string.Concat(name.EnumerateRunes().Select(rune => rune.ToString()).Select(each =>
        each.Length == 1 && char.IsAsciiLetterOrDigit(each[0]) ? each
            : each == "@" && at == "=" ? "(?:=|%3d)" : each == "@" ? "(?:@|%(?:25)?40|=40|&#64;)" : $"(?:{Regex.Escape(each)}|{Regex.Escape(Uri.EscapeDataString(each))})"));
    /// <summary>For LIKE, on lower case: what lies between the letters may be spelled in any way, and JSON may spell the letters so.</summary>
    public string[] Patterns { get; }
    public Known Without(Known known) => known with {
        Because = known.Because is { } because ? Without(because) : null,
        SoftBecause = known.SoftBecause is { } soft ? Without(soft) : null,
        Note = known.Note is { } note ? Without(note) : null,
    };
    // Not k, which \u212a is in lower case.
    [GeneratedRegex("[^a-jl-z0-9]+")] static partial Regex Marks { get; }
    [GeneratedRegex(@"\\u00([2-7][0-9a-fA-F])")] static partial Regex Escapes { get; }
    public string Without(string text) => _names.Replace(text, "forgotten");
    /// <summary>The same in every string of a JSON text, and in JSON within such a string. What names nobody is left as it is.</summary>
    public string WithoutJson(string text) {
        try {
            if (JsonNode.Parse(text) is not { } node) return text;
            bool changed = false;
            node = Walk(node, ref changed);
            if (!changed) return text;
            var (body, json) = ApiJson.Write();
            node.WriteTo(json);
            json.Flush();
            return Encoding.UTF8.GetString(body.WrittenSpan);
        } catch (Exception e) when (e is JsonException or ArgumentException or InvalidOperationException) { return WithoutEscaped(text); }
    }

    // Of a text that may be JSON to somebody else. Without anybody in it, it is left as it is spelled.
    string WithoutEscaped(string text) {
        string spelled = Escapes.Replace(text, each => ((char)Convert.ToInt32(each.Groups[1].Value, 16)).ToString()), rest = Without(spelled);
        return rest == spelled ? text : rest;
    }

    JsonNode Walk(JsonNode node, ref bool changed) {
        switch (node) {
            case JsonObject members:
                foreach (string name in members.Select(member => member.Key).ToArray())
                    if (Without(name) != name) changed = members.Remove(name);
                    else if (members[name] is { } member && Walk(member, ref changed) is var other && !ReferenceEquals(member, other))
                        members[name] = other;
                break;
            case JsonArray elements:
                for (int i = 0; i < elements.Count; i++)
                    if (elements[i] is { } element && Walk(element, ref changed) is var other && !ReferenceEquals(element, other))
                        elements[i] = other;
                break;
            case JsonValue value when value.GetValueKind() == JsonValueKind.String:
                string text = value.GetValue<string>(),
                    rest = text.AsSpan().TrimStart().StartsWith('{') ? WithoutJson(text) : WithoutEscaped(text);
                if (rest == text) break;
                changed = true;
                return JsonValue.Create(rest);
        }
        return node;
    }
}

/// <summary>`FeedbackReceiver copy`: what a LiteDB receiver has in Journal:Directory, into the database of ConnectionStrings:Feedback. The
/// journal is only read, whole lines of it, so a receiver may be writing there meanwhile; to copy again adds what came since.</summary>
sealed class JournalCopy(PostgresStore store, NpgsqlDataSource source, IOptions<ReceiverOptions> options) {
    readonly HashSet<Guid>[] _events = [[], [], []];
    readonly HashSet<Guid> _unread = [];
    readonly HashSet<string> _heardOf = new(StringComparer.Ordinal);
    readonly Dictionary<string, Known> _known = new(StringComparer.Ordinal);
    long _entries, _bad;
    bool _keyIsAnother;

    public static async Task<int> RunAsync(string[] args) {
        await using var app = Receiver.Build([.. args, "--Hook:Url="]); // the LiteDB receiver has told of what is copied
        var store = app.Services.GetService<PostgresStore>()
            ?? throw new Refusal("copy: ConnectionStrings:Feedback is where to copy to: Host=...;Database=...;Username=...");
        try {
            return await new JournalCopy(store, app.Services.GetRequiredService<NpgsqlDataSource>(),
                app.Services.GetRequiredService<IOptions<ReceiverOptions>>()).CopyAsync();
        } catch (Exception e) when (e is NpgsqlException or TimeoutException) {
            throw new Refusal("copy: PostgreSQL cannot be used: " + e.Message);
        }
    }

    async Task<int> CopyAsync() {
        string folder = options.Value.JournalDirectory;
        if (!Directory.Exists(folder) || !Journal.Segments(folder).Any())
            throw new Refusal($"copy: there is no journal in Journal:Directory {folder}");
        await PostgresSchema.MigrateAsync(source, CancellationToken.None);
        int[] segments = [.. Journal.Segments(folder).Order()];
        if (segments[^1] != segments.Length)
            throw new Refusal($"copy: of {segments[^1]} segments of the journal {segments.Length} are there: restore the others");
        byte[]? key = LiteDbStore.ForgetKeyIn(folder);
        if (key is not null) await TakeForgetKeyAsync(key);
        await store.StartAsync(CancellationToken.None);
        var (clock, told) = (Stopwatch.StartNew(), 0L);
        foreach (int segment in segments) {
            var (batch, length) = (new List<PreparedEntry>(), 0L);
            foreach (var line in LinesOf(Journal.PathOf(folder, segment))) {
                if (!line.Span.ContainsAnyExcept((byte)' ')) continue;
                if (Entry.Read(line.Span) is not { } entry) { _bad++; continue; }
                if (key is null && entry.Forget?.Known is not null)
                    throw new Refusal($"copy: {LiteDbStore.ForgetKeyPath(folder)} is missing or damaged: restore it, and copy again");
                var prepared = store.Prepare(entry);
                if (entry.Lift is not null || entry.Forget?.Known is not null) {
                    await KeepAsync(batch); // what was before it is told apart from what came since
                    await KeepAloneAsync(prepared, key);
                } else {
                    batch.Add(prepared);
                }
                Tally(prepared);
                if (batch.Count is > 0 and < 256 && (length += prepared.Length) < PostgresStore.MostCharacters) continue;
                await KeepAsync(batch);
                length = 0;
                if (clock.ElapsedMilliseconds - told < 5000) continue;
                told = clock.ElapsedMilliseconds;
                Console.WriteLine($"copying: segment {segment} of {segments[^1]}, {_entries} entries, {_entries * 1000 / told} a second");
            }
            await KeepAsync(batch);
        }
        int code = await CompareAsync(clock.Elapsed);
        await store.StopAsync(CancellationToken.None);
        return code;
    }
    /// <summary>The lines that are whole now. A last one without its end is being written, or was never acknowledged.</summary>
    public static IEnumerable<ReadOnlyMemory<byte>> LinesOf(string path) {
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 0);
        byte[] segment = new byte[file.Length];
        int length = file.ReadAtLeast(segment, segment.Length, throwOnEndOfStream: false);
        for (int from = 0, end; (end = segment.AsSpan(from..length).IndexOf((byte)'\n')) >= 0; from += end + 1)
            yield return segment.AsMemory(from, end);
    }
    // What the journal lifts was lifted before now, and so was whom it forgot as not suppressed. Whom PostgreSQL has heard of since, or
    // knows under the hash otherwise than the journal, stays as PostgreSQL has it. What takes long is asked first; and all of it under the
    // lock of the address, so that nothing comes between the answer and COMMIT.
    async Task KeepAloneAsync(PreparedEntry prepared, byte[]? key) {
        var asked = DateTimeOffset.UtcNow;
        if (prepared.Entry.Lift is not { Address: var address }
            || await store.ReadLongAsync("select exists (select from entries where id = $1)", row => row.GetBoolean(0), PostgresStore.P(prepared.Id)) is [true]
            || await store.ReadLongAsync(IsHeardOf, row => row.GetBoolean(0), HeardOf(prepared, address, prepared.Entry.At)) is [false])
            await KeepAsync([prepared], connection => IsOvertakenAsync(connection, prepared, key, asked.AddMinutes(-5))); // clocks differ
        else _heardOf.Add(store.Alias(PreparedEntry.Clean(address)));
        if (_keyIsAnother) throw new Refusal(AnotherKey);
    }
    string IsHeardOf => Sql.IsHeardOf(Sql.HeardSince(options.Value.SoftBounceLimit));
    // By hand nobody can have been suppressed before `from`.
    static NpgsqlParameter[] HeardOf(PreparedEntry prepared, string address, DateTimeOffset from) => [P(prepared.Entry.At),
        PostgresStore.P(PreparedEntry.Clean(address)), P(from > prepared.Entry.At ? from : prepared.Entry.At),
        PostgresStore.P($"\"suppress\":{{\"address\":\"{JsonEncodedText.Encode(PreparedEntry.Clean(address), Receiver.Relaxed)}\"")];
    static NpgsqlParameter<Guid> P(DateTimeOffset time) => PostgresStore.P(EventQuery.At(time));

    async Task<bool> IsOvertakenAsync(NpgsqlConnection connection, PreparedEntry prepared, byte[]? key, DateTimeOffset from) {
        Task<List<T>> ReadAsync<T>(string sql, Func<NpgsqlDataReader, T> read, params NpgsqlParameter[] parameters) =>
            PostgresStore.ReadAsync(connection, sql, read, parameters, patient: true);
        if (prepared.Entry.Forget is not null) // nobody is forgotten under a key that another copy has brought
            _keyIsAnother = await ReadAsync(Sql.IsForgetKey, row => row.GetBoolean(0), PostgresStore.P(Convert.ToHexStringLower(key!))) is not [true];
        if (_keyIsAnother || prepared.Entry.Forget is { Known.Suppressed: true }) return _keyIsAnother;
        string? address = prepared.Entry.Lift?.Address;
        string alias = address is null ? prepared.Entry.Forget!.Alias : store.Alias(PreparedEntry.Clean(address));
        bool heardOf = address is not null ? await ReadAsync(IsHeardOf, row => row.GetBoolean(0), HeardOf(prepared, address, from)) is [true]
            : (await ReadAsync(Sql.HeardSince(options.Value.SoftBounceLimit), row => row.GetString(0), P(prepared.Entry.At)))
                .Exists(each => store.Alias(each) == alias);
        var there = await ReadAsync("select known::text from suppressions where email = $1 and reason is not null",
            row => PostgresBatch.JsonOf(PostgresBatch.KnownOf(row.GetString(0))), PostgresStore.P(alias));
        heardOf |= there is [var json] && json != PostgresBatch.JsonOf(_known.GetValueOrDefault(alias, Known.Nothing));
        if (heardOf) _heardOf.Add(alias);
        return heardOf;
    }
    // In the order of the journal, so one batch after another; a server that restarts is waited for.
    async Task KeepAsync(List<PreparedEntry> batch, Func<NpgsqlConnection, Task<bool>>? unless = null) {
        for (int tries = 0; await store.KeepAsync(batch, unless) != Commit.Kept; await Task.Delay(1000))
            if (++tries == 60)
                throw new Refusal("copy: PostgreSQL cannot be written; what was copied stays, and copying again goes on from there");
        _entries += batch.Count;
        batch.Clear();
    }
    // Whom the LiteDB receiver forgot is known under its key.
    async Task TakeForgetKeyAsync(byte[] key) {
        await using var connection = await source.OpenConnectionAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await using var command = new NpgsqlCommand("lock table suppressions in share mode", connection); // nobody is forgotten meanwhile
        await command.ExecuteNonQueryAsync();
        command.CommandText = """
            update meta set value = $1 where name = 'forget_key' and value <> $1 and not exists (select from suppressions where email like 'forgotten:%')
            """;
        command.Parameters.Add(PostgresStore.P(Convert.ToHexStringLower(key)));
        await command.ExecuteNonQueryAsync();
        await transaction.CommitAsync();
        command.CommandText = Sql.IsForgetKey;
        if (await command.ExecuteScalarAsync() is not true) throw new Refusal(AnotherKey);
    }
    const string AnotherKey = "copy: people were forgotten under another key in PostgreSQL, "
        + "so those of the journal cannot be known there: copy into an empty database";

    void Tally(PreparedEntry prepared) {
        foreach (var (id, feedback) in prepared.Events)
            _events[Array.FindIndex(Sql.Tables, table => table.Holds(feedback.Kind))].Add(id);
        prepared.Judge(options.Value.SoftBounceLimit, Update);
        if (prepared.Unread is not null) _unread.Add(prepared.Id);
    }
    void Update(string address, Func<Known, Known> judge) {
        if (store.Alias(address) is var alias && _known.ContainsKey(alias)) address = alias;
        if (judge(_known.GetValueOrDefault(address, Known.Nothing)) is var known && !ReferenceEquals(known, Known.Nothing))
            _known[address] = known;
    }

    async Task<int> CompareAsync(TimeSpan took) {
        Console.WriteLine($"{_entries} entries in {took.TotalSeconds:0} s{(_bad > 0 ? $", {_bad} lines that are none" : "")}");
        Console.WriteLine($"{"",-22}{"journal",12}{"PostgreSQL",12}");
        bool all = true;
        async Task LineAsync(string name, long journal, string sql) {
            await using var command = source.CreateCommand(sql);
            command.CommandTimeout = 0;
            long there = (long)(await command.ExecuteScalarAsync())!;
            all &= there >= journal;
            Console.WriteLine($"{name,-22}{journal,12}{there,12}");
        }
        for (int i = 0; i < Sql.Tables.Length; i++)
            await LineAsync(Sql.Tables[i].Name, _events[i].Count, "select count(*) from " + Sql.Tables[i].Name);
        await LineAsync("addresses suppressed", _known.Values.Count(known => known.Suppressed),
            "select count(*) from suppressions where reason is not null");
        await LineAsync("unread", _unread.Count, "select count(*) from unread");
        if (_heardOf.Count > 0)
            Console.WriteLine($"{_heardOf.Count} addresses that the journal lifted were heard of in PostgreSQL since, and stay suppressed.");
        Console.WriteLine(all
            ? "All of the journal is in PostgreSQL."
            : "PostgreSQL holds less than the journal: what was lifted or forgotten there, or another setting.");
        return all ? 0 : 1;
    }
}

static partial class PostgresLog {
    [LoggerMessage(201, Warning, "PostgreSQL cannot be used ({Why}): {Count} times so far")]
    public static partial void Trouble(this ILogger logger, string why, long count);
    [LoggerMessage(202, Information, "{Table}: schema {Version} is made")]
    public static partial void Migrated(this ILogger logger, string table, int version);
}
