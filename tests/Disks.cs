using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Time.Testing;
using Microsoft.Win32.SafeHandles;

/// <summary>The journal's disk, watched. Tests put their own write and flush in its place, and see a death that would
/// end the process.</summary>
sealed class WatchedDisk : Disk {
    readonly Lock _gate = new();
    readonly StringBuilder _written = new();
    string _flushed = "";

    public Action<SafeFileHandle, IReadOnlyList<ReadOnlyMemory<byte>>, long> OnWrite { get; set; } = RandomAccess.Write;
    public Action<SafeFileHandle> OnFlush { get; set; } = RandomAccess.FlushToDisk;

    /// <summary>Everything that a finished flush covers.</summary>
    public string Flushed { get { lock (_gate) return _flushed; } }

    /// <summary>Finished flushes.</summary>
    public int Flushes { get; private set; }

    /// <summary>What the process would have died of.</summary>
    public List<Exception> Deaths { get; } = [];

    public override void Write(SafeFileHandle file, IReadOnlyList<ReadOnlyMemory<byte>> lines, long offset) {
        OnWrite(file, lines, offset);
        foreach (var line in lines) _written.Append(Encoding.UTF8.GetString(line.Span));
    }

    public override void Flush(SafeFileHandle file) {
        OnFlush(file);
        lock (_gate) (_flushed, Flushes) = (_written.ToString(), Flushes + 1);
    }

    public override void Die(Exception reason) => Deaths.Add(reason);

    /// <summary>Every flush waits from now on, until the hold is let go.</summary>
    public Hold HoldFlushes() {
        var hold = new Hold();
        OnFlush = file => {
            hold.Wait();
            RandomAccess.FlushToDisk(file);
        };
        return hold;
    }

    /// <summary>Writes half of what is to be written, as a full disk does.</summary>
    public static void WriteHalf(SafeFileHandle file, IReadOnlyList<ReadOnlyMemory<byte>> lines, long offset) {
        byte[] all = [.. lines.SelectMany(line => line.ToArray())];
        RandomAccess.Write(file, all.AsSpan(0, all.Length / 2), offset);
    }

    public static void WriteHalfAndFail(SafeFileHandle file, IReadOnlyList<ReadOnlyMemory<byte>> lines, long offset) {
        WriteHalf(file, lines, offset);
        throw new IOException("No space left on device", 28);
    }
}

/// <summary>A place at which a thread waits until the test lets it go.</summary>
sealed class Hold : IDisposable {
    readonly TaskCompletionSource _reached = new(TaskCreationOptions.RunContinuationsAsynchronously), _open = new();

    public void Wait() {
        _reached.TrySetResult();
        _open.Task.Wait();
    }

    /// <summary>Completes when somebody waits.</summary>
    public Task ReachedAsync() =>
        _reached.Task.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
    public void LetGo() => _open.TrySetResult();
    public void Dispose() => LetGo();
}

/// <summary>The follower asks it for the time, and waits there for as long as the test wants.</summary>
sealed class FollowersClock() : FakeTimeProvider(new(2026, 11, 24, 8, 0, 0, TimeSpan.Zero)), IDisposable {
    readonly Lock _gate = new();
    Func<LiteDbStore, bool> _holds = _ => false;
    Hold _hold = new();
    public LiteDbStore Store { get; set; } = null!;

    public override long GetTimestamp() {
        if (Thread.CurrentThread.Name == "follower") Next()?.Wait();
        return base.GetTimestamp();
    }
    Hold? Next() { lock (_gate) return _holds(Store) ? _hold : null; }

    /// <summary>Lets it go: before the receiver stops, which waits for it.</summary>
    public void Dispose() => HoldWhen(_ => false);

    /// <summary>Lets it go, until this is true.</summary>
    public Hold HoldWhen(Func<LiteDbStore, bool> holds) {
        lock (_gate) {
            _hold.LetGo();
            (_holds, _hold) = (holds, new());
            return _hold;
        }
    }
}

/// <summary>Asks until it is so, for half a minute at most.</summary>
static class Eventually {
    public static async Task TrueAsync(Func<Task<bool>> condition, int seconds = 30, int pause = 20) {
        for (var patience = Stopwatch.StartNew(); !await condition(); await Task.Delay(pause, TestContext.Current.CancellationToken))
            Assert.True(patience.Elapsed < TimeSpan.FromSeconds(seconds), $"it is not so after {seconds} s");
    }

    public static Task TrueAsync(Func<bool> condition, int seconds = 30) =>
        TrueAsync(() => Task.FromResult(condition()), seconds);
}

/// <summary>Journal lines as they lie on disk, written out here and not by the receiver's own code.</summary>
static class Lines {
    public static string Suppress(string address) =>
        $$$"""{"at":"2026-11-24T08:00:00+00:00","suppress":{"address":"{{{address}}}","reason":"manual"}}""" + "\n";

    /// <summary>A bounce that nobody signed: what lies in the journal was verified when it came.</summary>
    public static string Bounce(string address, string mailId = "0100019a00000000-mail", string type = "Permanent") =>
        $$"""
        {"at":"2026-11-24T08:00:00+00:00","message":{"Type":"Notification",
        "MessageId":"00000000-0000-4000-8000-000000000000","TopicArn":"{{FakeSns.TopicArn}}",
        "Message":{{Quoted(FakeSns.SesBounce([address], mailId, type))}},
        "Timestamp":"2026-11-24T08:00:00.123Z","SignatureVersion":"2","Signature":"AAAA",
        "SigningCertURL":"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0.pem"} }
        """.ReplaceLineEndings("") + "\n";

    /// <summary>Under what somebody is known who was forgotten.</summary>
    public static string Alias(byte[] key, string address) =>
        "forgotten:" + Convert.ToHexStringLower(HMACSHA256.HashData(key, Encoding.UTF8.GetBytes(address)));

    /// <summary>The line of somebody who was forgotten while suppressed.</summary>
    public static string Forget(string alias) =>
        $$$"""{"at":"2026-11-24T08:00:00+00:00","forget":{"alias":"{{{alias}}}","known":{"Reason":"bounce","Since":"2026-11-24T08:00:00+00:00"} } }""";

    static string Quoted(string text) => JsonSerializer.Serialize(text);

    public static string SegmentIn(string folder) => Journal.PathOf(Path.Combine(folder, "journal"), 1);

    /// <summary>A journal of bounces, of a0@example.com and so on.</summary>
    public static string FolderOfBounces(int count) =>
        FolderOf(Enumerable.Range(0, count).Select(number => Bounce($"a{number}@example.com")));

    /// <summary>A folder with a journal of these lines.</summary>
    public static string FolderOf(params IEnumerable<string> lines) {
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        Directory.CreateDirectory(Path.Combine(folder, "journal"));
        File.WriteAllLines(SegmentIn(folder), lines.Select(line => line.TrimEnd('\n')));
        return folder;
    }
}
