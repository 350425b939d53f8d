using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using Npgsql;

[assembly: AssemblyFixture(typeof(PostgresCluster))]

/// <summary>A PostgreSQL of our own on a free port of this machine, made by the first test that wants it and ended with the run. Each
/// test has a database of its own.</summary>
public sealed class PostgresCluster : IAsyncDisposable {
    static readonly string? Bin = new[] { Environment.GetEnvironmentVariable("PATH") ?? "" }
        .SelectMany(path => path.Split(Path.PathSeparator))
        .Concat(Directory.Exists("/usr/lib/postgresql")
            ? Directory.GetDirectories("/usr/lib/postgresql").Order().Reverse().Select(version => version + "/bin")
            : [])
        .FirstOrDefault(folder => File.Exists(Path.Combine(folder, "initdb")) && File.Exists(Path.Combine(folder, "postgres")));
    static readonly string[] Owner = Environment.IsPrivilegedProcess
        ? ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] : [];
    readonly string _folder = Path.Combine(Path.GetTempPath(), $"postgres-{Guid.NewGuid():N}");
    readonly SemaphoreSlim _gate = new(1);
    readonly int _port = Moto.FreePort();
    Process? _server;
    int _databases;

    /// <summary>What the server has logged, by lines.</summary>
    public ConcurrentQueue<string> Log { get; } = [];
    public string Fsync { get; init; } = "on";
    /// <summary>Whether it listens in its folder, too.</summary>
    public bool HasSocket { get; init; }

    /// <summary>The superuser's connection string to a new database. Skips the test where there is no PostgreSQL.</summary>
    public async Task<string> NewDatabaseAsync(string with = "") {
        await MakeAsync();
        string name = $"feedback{Interlocked.Increment(ref _databases)}";
        await ExecuteAsync(For("postgres"), $"create database {name} {with}");
        return For(name);
    }

    async Task MakeAsync() {
        Assert.SkipUnless(Bin is not null, "initdb and postgres are not on PATH nor in /usr/lib/postgresql: apt-get install postgresql");
        await _gate.WaitAsync();
        try {
            if (_server is not null) return;
            Run("initdb", "-D", _folder, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync");
            await StartAsync();
        } finally { _gate.Release(); }
    }

    public string For(string database, bool bySocket = false) =>
        $"Host={(bySocket ? _folder : "127.0.0.1")};Port={_port};Username=postgres;Database={database}";

    static ProcessStartInfo Start(string program, params string[] arguments) {
        string[] command = [.. Owner, Path.Combine(Bin!, program), .. arguments];
        return new(command[0], command[1..]) { RedirectStandardError = true, RedirectStandardOutput = true, WorkingDirectory = "/tmp" };
    }

    static void Run(string program, params string[] arguments) {
        using var process = Process.Start(Start(program, arguments))!;
        process.OutputDataReceived += (_, _) => { };
        process.BeginOutputReadLine();
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, errors);
    }

    public async Task StartAsync() {
        _server = Process.Start(Start("postgres", "-D", _folder,
            "-p", _port.ToString(CultureInfo.InvariantCulture), "-c", "listen_addresses=127.0.0.1",
            "-c", "unix_socket_directories=" + (HasSocket ? _folder : ""), "-c", "max_connections=200", "-c", "fsync=" + Fsync))!;
        _server.OutputDataReceived += (_, _) => { };
        _server.ErrorDataReceived += (_, line) => Log.Enqueue(line.Data ?? "");
        _server.BeginOutputReadLine();
        _server.BeginErrorReadLine();
        await Eventually.TrueAsync(async () => {
            try {
                await ExecuteAsync(For("postgres"), "select 1");
                return true;
            } catch (NpgsqlException) { return false; }
        });
    }
    /// <summary>Fast: SIGINT, every connection is told to go. Immediate: SIGQUIT, as if the power had been cut.</summary>
    public async Task StopAsync(bool immediate) {
        using var kill = Process.Start("kill", [immediate ? "-QUIT" : "-INT", $"{_server!.Id}"]);
        await _server.WaitForExitAsync();
        _server.Dispose();
    }

    /// <summary>Of nobody, so it lags for ever.</summary>
    public async Task BecomeStandbyAsync() {
        await StopAsync(immediate: false);
        File.Create(Path.Combine(_folder, "standby.signal")).Dispose();
        await StartAsync();
    }
    /// <summary>STOP: it says nothing any more, though the kernel goes on to take connections. CONT: it goes on.</summary>
    public async Task SignalAsync(string database, string signal) {
        if (signal == "STOP") _backends = await QueryAsync(database,
            "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()");
        using var kill = Process.Start("kill", ["-" + signal, .. _backends, $"{_server!.Id}"]);
        await kill.WaitForExitAsync();
    }
    string[] _backends = [];

    public static async Task ExecuteAsync(string connection, string sql) {
        await using var source = NpgsqlDataSource.Create(connection + ";Pooling=false");
        await using var command = source.CreateCommand(sql);
        await command.ExecuteNonQueryAsync();
    }
    /// <summary>The rows of a query, each as its columns' texts.</summary>
    public static async Task<string[]> QueryAsync(string connection, string sql) {
        await using var source = NpgsqlDataSource.Create(connection + ";Pooling=false");
        await using var command = source.CreateCommand(sql);
        await using var reader = await command.ExecuteReaderAsync();
        var rows = new List<string>();
        while (await reader.ReadAsync())
            rows.Add(string.Join(' ', Enumerable.Range(0, reader.FieldCount).Select(
                column => Convert.ToString(reader.GetValue(column), CultureInfo.InvariantCulture))));
        return [.. rows];
    }

    public async ValueTask DisposeAsync() {
        if (_server is null) return;
        await StopAsync(immediate: true);
        Directory.Delete(_folder, recursive: true);
    }
}
