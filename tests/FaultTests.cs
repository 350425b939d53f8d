using System.Collections.Concurrent;
using System.Diagnostics;

/// <summary>A file system of a few MiB, which can be full or read-only. It needs root.</summary>
sealed class SmallDisk : IDisposable {
    readonly string _ballast;

    SmallDisk(string folder) => (Folder, _ballast) = (folder, Path.Combine(folder, "ballast"));

    public string Folder { get; }

    public static SmallDisk Mount(int mebibytes) {
        Assert.SkipUnless(OperatingSystem.IsLinux() && Environment.IsPrivilegedProcess, "a tmpfs needs root on Linux");
        var disk = new SmallDisk(Directory.CreateTempSubdirectory("small-disk-").FullName);
        string why = Run("mount", "-t", "tmpfs", "-o", $"size={mebibytes}m", "tmpfs", disk.Folder);
        Assert.SkipUnless(why.Length == 0, "no tmpfs can be mounted here: " + why);
        return disk;
    }

    public void Fill() {
        using var ballast = new FileStream(_ballast, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 0);
        try { while (true) ballast.Write(new byte[4096]); } catch (IOException) { } // full
    }

    public void Free() => File.Delete(_ballast);
    public void Remount(string options) => Assert.Equal("", Run("mount", "-o", "remount," + options, Folder));
    public void Dispose() => Run("umount", "-l", Folder);

    static string Run(string command, params string[] arguments) {
        using var process = Process.Start(new ProcessStartInfo(command, arguments) { RedirectStandardError = true })!;
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return errors.Trim();
    }
}

[Collection("Alone")]
public sealed class FaultTests {
    static Task<ReceiverApp> StartAsync(SmallDisk disk, string folder, FakeSns? sns = null) =>
        ReceiverApp.StartAsync(["Journal:Directory=" + Path.Combine(disk.Folder, "journal")], folder, sns);

    [Fact]
    public async Task On_a_full_disk_SNS_is_asked_to_come_again_and_once_there_is_room_everything_is_kept() {
        using var disk = SmallDisk.Mount(mebibytes: 2);
        string folder = Lines.FolderOf();
        var sns = new FakeSns();
        var kept = new List<string>();
        await using (var app = await StartAsync(disk, folder, sns)) {
            async Task PostAsync(string address) {
                if ((await app.PostAsync(sns.Bounce(address))).Status == 200) kept.Add(address);
            }
            await PostAsync("before@example.com");
            disk.Fill();
            for (int number = 0; number < 50; number++) await PostAsync($"full{number}@example.com");
            Assert.Equal(503, (await app.PostAsync(sns.Bounce("full@example.com"))).Status);
            Assert.Equal(200, await app.StatusAsync("/suppressed/before@example.com"));
            disk.Free();
            Assert.Equal(200, (await app.PostAsync(sns.Bounce("after@example.com"))).Status);
            await app.StopAsync();
        }
        await using var again = await StartAsync(disk, folder, sns);
        Assert.DoesNotContain("cut off", again.Log.Text, StringComparison.Ordinal);
        foreach (string address in (string[])[.. kept, "after@example.com"]) {
            Assert.Equal(200, await again.StatusAsync("/suppressed/" + address));
            Assert.Single(await again.HistoryAsync(address));
        }
        Assert.Equal(404, await again.StatusAsync("/suppressed/full@example.com"));
    }

    [Fact]
    public async Task Started_on_a_full_disk_the_receiver_answers_lookups_and_keeps_messages_once_there_is_room() {
        using var disk = SmallDisk.Mount(mebibytes: 4);
        var sns = new FakeSns();
        await using (var app = await ReceiverApp.StartAsync(folder: disk.Folder, sns: sns)) {
            await app.PostAsync(sns.Bounce("before@example.com"));
            await app.StopAsync();
        }
        disk.Fill();
        await using var again = await ReceiverApp.StartAsync(folder: disk.Folder, sns: sns);
        Assert.Equal(200, await again.StatusAsync("/suppressed/before@example.com"));
        for (int number = 0; number < 20; number++) await again.PostAsync(sns.Bounce($"full{number}@example.com"));
        Assert.Equal(503, (await again.PostAsync(sns.Bounce("full@example.com"))).Status);
        disk.Free();
        Assert.Equal(200, (await again.PostAsync(sns.Bounce("after@example.com"))).Status);
        Assert.Single(await again.HistoryAsync("after@example.com"));
        Assert.Empty(Directory.GetFiles(disk.Folder, "*.aside"));
    }

    [Fact]
    public async Task When_only_feedback_db_has_no_room_messages_are_still_kept_and_history_catches_up() {
        using var disk = SmallDisk.Mount(mebibytes: 2);
        await using var app = await ReceiverApp.StartAsync(
            [$"ConnectionStrings:Feedback=Filename={disk.Folder}/feedback.db"]);
        await app.PostAsync(app.Sns.Bounce("before@example.com"));
        Assert.Single(await app.HistoryAsync("before@example.com"));
        disk.Fill();
        for (int number = 0; number < 100; number++)
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce($"full{number}@example.com"))).Status);
        await Eventually.TrueAsync(() => app.Log.Text.Contains("The follower failed", StringComparison.Ordinal));
        Assert.Equal(200, await app.StatusAsync("/suppressed/full99@example.com"));
        for (int times = 0; times < 4; times++) await app.GetAsync("/history/full99@example.com");
        disk.Free();
        disk.Remount("size=64m");
        Assert.Single(await app.HistoryAsync("full99@example.com"));
        Assert.Single(await app.HistoryAsync("full0@example.com"));
        Assert.Single(await app.HistoryAsync("before@example.com"));
        Assert.Empty(Directory.GetFiles(disk.Folder, "*.aside"));
    }

    [Fact]
    public async Task A_journal_on_a_read_only_disk_is_refused_in_one_line_that_says_so() {
        using var disk = SmallDisk.Mount(mebibytes: 2);
        string folder = Lines.FolderOf();
        await using (var app = await StartAsync(disk, folder)) await app.StopAsync();
        disk.Remount("ro");
        var refusal = await Assert.ThrowsAsync<Refusal>(() => StartAsync(disk, folder));
        Assert.Contains("Journal:Directory", refusal.Message, StringComparison.Ordinal);
        Assert.Contains("Read-only file system", refusal.Message, StringComparison.Ordinal);
    }

    [Fact, Trait("Category", "Load")]
    public async Task A_flood_of_forgeries_neither_delays_the_genuine_nor_fills_the_memory() {
        await using var app = await ReceiverApp.StartAsync();
        string[] genuine = [.. Enumerable.Range(0, 600).Select(number => app.Sns.Bounce($"a{number}@example.com"))];
        string forged = genuine[0].Replace("a0@example.com", "victim@example.com", StringComparison.Ordinal);
        foreach (string body in (string[])[forged, genuine[0], genuine[1]]) await app.PostAsync(body);
        async Task<double> GenuineAsync(int number) {
            long started = Stopwatch.GetTimestamp();
            Assert.Equal(200, (await app.PostAsync(genuine[number])).Status);
            return Stopwatch.GetElapsedTime(started).TotalMilliseconds;
        }
        static double P99(List<double> took) => took.Order().ElementAt(took.Count * 99 / 100);
        var (calm, took, answers) = (new List<double>(), new List<double>(), new ConcurrentBag<int>());
        while (calm.Count < 100) calm.Add(await GenuineAsync(2 + calm.Count));
        long before = GC.GetTotalMemory(forceFullCollection: true);
        var busy = Environment.CpuUsage.TotalTime;
        // Twenty senders, each every 20 ms: a thousand a second.
        var flood = Task.WhenAll(Enumerable.Range(0, 20).Select(async _ => {
            using var beat = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
            for (int number = 0; number < 500; number++) {
                await beat.WaitForNextTickAsync(TestContext.Current.CancellationToken);
                answers.Add((await app.PostAsync(forged)).Status);
            }
        }));
        for (int next = 102; !flood.IsCompleted && next < genuine.Length; next++) {
            took.Add(await GenuineAsync(next));
            await Task.Delay(20, TestContext.Current.CancellationToken);
        }
        await flood;
        double each = (Environment.CpuUsage.TotalTime - busy).TotalMilliseconds / answers.Count;
        long grown = (GC.GetTotalMemory(forceFullCollection: true) - before) >> 20;
        Assert.All(answers, status => Assert.Equal(403, status));
        Assert.True(P99(took) <= Math.Max(100, 2 * P99(calm)) && grown < 16 && each < 2.5,
            $"p99 {P99(took):0.0} ms, {P99(calm):0.0} ms before, {grown} MiB more, {each:0.00} ms of a core for each of {answers.Count} forgeries and its sender");
        Assert.Equal(404, await app.StatusAsync("/suppressed/victim@example.com"));
    }
}
