using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;

public sealed class JournalTests {
    static JsonElement[] EntriesIn(ReceiverApp app, int segment = 1) =>
        [.. File.ReadAllLines(Journal.PathOf(app.JournalFolder, segment)).Where(line => line.Trim().Length > 0)
            .Select(line => JsonElement.Parse(line))];

    static Entry Suppress(ReceiverApp app, string address) =>
        new(app.Clock.GetUtcNow(), Suppress: new(address, "manual"));

    /// <summary>One entry that is being flushed, and so many that wait behind it.</summary>
    static async Task<(Task<Commit> First, Task<Commit>[] Waiting)> BehindAFlushAsync(ReceiverApp app, Hold flush, int count) {
        var store = app.Services.GetRequiredService<IFeedbackStore>();
        var first = store.CommitAsync(Suppress(app, "first@example.com"));
        await flush.ReachedAsync();
        return (first, [.. Enumerable.Range(0, count).Select(number => store.CommitAsync(Suppress(app, $"a{number}@example.com")))]);
    }

    static async Task<int> HealthAsync(ReceiverApp app) =>
        (int)(await app.Webhook.GetAsync("/health", TestContext.Current.CancellationToken)).StatusCode;

    [Fact]
    public async Task No_answer_leaves_before_the_flush_that_covers_it() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        using var flush = disk.HoldFlushes();
        var post = app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await flush.ReachedAsync();
        await Assert.ThrowsAsync<TimeoutException>(() => post.WaitAsync(TimeSpan.FromMilliseconds(300),
            TestContext.Current.CancellationToken));
        Assert.Equal(404, await app.StatusAsync("/suppressed/jane@example.com"));
        flush.LetGo();
        Assert.Equal(200, (await post).Status);
    }

    [Fact]
    public async Task Everything_that_was_answered_had_been_written_and_then_flushed() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        await Task.WhenAll(Enumerable.Range(0, 200).Select(async number => {
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce($"a{number}@example.com"))).Status);
            Assert.Contains($"a{number}@example.com", disk.Flushed, StringComparison.Ordinal);
        }));
    }

    [Fact]
    public async Task What_waits_behind_a_flush_is_kept_by_one_more() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        using var flush = disk.HoldFlushes();
        var (first, waiting) = await BehindAFlushAsync(app, flush, 500);
        flush.LetGo();
        Assert.All(await Task.WhenAll([first, .. waiting]), commit => Assert.Equal(Commit.Kept, commit));
        Assert.Equal(2, disk.Flushes);
    }

    [Fact]
    public async Task After_a_failed_flush_the_process_ends_and_nothing_is_acknowledged_again() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        disk.OnFlush = _ => throw new IOException("Input/output error", 5);
        Assert.Equal(503, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status);
        disk.OnFlush = RandomAccess.FlushToDisk;
        Assert.Single(disk.Deaths);
        Assert.Equal(503, (await app.PostAsync(app.Sns.Bounce("joe@example.com"))).Status);
        Assert.Equal(503, await HealthAsync(app));
        Assert.Equal(404, await app.StatusAsync("/suppressed/jane@example.com"));
    }

    [Fact]
    public async Task A_write_that_fails_is_undone_and_the_next_one_is_kept_without_a_restart() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        await app.PostAsync(app.Sns.Bounce("before@example.com"));
        string before = File.ReadAllText(Lines.SegmentIn(app.Folder));
        disk.OnWrite = WatchedDisk.WriteHalfAndFail;
        Assert.Equal((503, "the journal cannot be written now"),
            await app.PostAsync(app.Sns.Bounce("lost@example.com")));
        Assert.Equal(before, File.ReadAllText(Lines.SegmentIn(app.Folder)));
        disk.OnWrite = RandomAccess.Write;
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("after@example.com"))).Status);
        Assert.Collection(EntriesIn(app),
            entry => Assert.Contains("before@example.com", entry.ToString(), StringComparison.Ordinal),
            entry => Assert.Contains("after@example.com", entry.ToString(), StringComparison.Ordinal));
        Assert.Equal(404, await app.StatusAsync("/suppressed/lost@example.com"));
        Assert.Empty(disk.Deaths);
    }

    [Fact]
    public async Task SNS_is_asked_to_come_again_while_the_journal_cannot_be_written() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        disk.OnWrite = WatchedDisk.WriteHalfAndFail;
        using var body = new StringContent(app.Sns.Bounce("jane@example.com"));
        using var response = await app.Webhook.PostAsync("/sns", body, TestContext.Current.CancellationToken);
        Assert.Equal(503, (int)response.StatusCode);
        Assert.NotNull(response.Headers.RetryAfter);
    }

    [Fact]
    public async Task Health_is_503_while_the_journal_cannot_be_written_and_200_once_it_can_though_no_message_came() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        Assert.Equal(200, await HealthAsync(app));
        disk.OnWrite = WatchedDisk.WriteHalfAndFail;
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        Assert.Equal(503, await HealthAsync(app));
        disk.OnWrite = RandomAccess.Write;
        Assert.Equal(200, await HealthAsync(app));
    }

    [Fact]
    public async Task The_blank_line_by_which_health_tries_the_journal_is_no_torn_tail_at_the_next_start() {
        var disk = new WatchedDisk { OnWrite = WatchedDisk.WriteHalfAndFail };
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        var store = app.Services.GetRequiredService<IFeedbackStore>();
        await app.PostAsync(app.Sns.Bounce("lost@example.com"));
        disk.OnWrite = RandomAccess.Write;
        using var flush = disk.HoldFlushes();
        var first = app.PostAsync(app.Sns.Bounce("first@example.com"));
        await flush.ReachedAsync();
        var (second, health) = (store.CommitAsync(Suppress(app, "second@example.com")), store.IsWritableAsync());
        flush.LetGo();
        Assert.Equal((200, Commit.Kept, true), ((await first).Status, await second, await health));
        await app.HistoryAsync("first@example.com");
        await app.StopAsync();
        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
        Assert.Equal(200, await again.StatusAsync("/suppressed/second@example.com"));
        Assert.DoesNotContain("cut off", again.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_crash_in_the_middle_of_a_write_loses_nothing_that_was_acknowledged() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        await app.PostAsync(app.Sns.Bounce("before@example.com"));
        using var write = new Hold();
        disk.OnWrite = (file, lines, offset) => {
            WatchedDisk.WriteHalf(file, lines, offset);
            write.Wait();
            RandomAccess.Write(file, lines, offset);
        };
        var post = app.PostAsync(app.Sns.Bounce("half@example.com"));
        await write.ReachedAsync();
        string crashed = Lines.FolderOf();
        File.Copy(Lines.SegmentIn(app.Folder), Lines.SegmentIn(crashed), overwrite: true);
        write.LetGo();
        await using var again = await ReceiverApp.StartAsync(folder: crashed, sns: app.Sns);
        Assert.Contains("never acknowledged; they are cut off", again.Log.Text, StringComparison.Ordinal);
        Assert.Equal(200, await again.StatusAsync("/suppressed/before@example.com"));
        Assert.Equal(404, await again.StatusAsync("/suppressed/half@example.com"));
        Assert.Equal(200, (await again.PostAsync(app.Sns.Bounce("half@example.com"))).Status);
        Assert.Equal(200, (await post).Status);
    }

    [Fact]
    public async Task The_journal_goes_on_in_a_new_segment_once_one_is_full_and_all_of_it_is_read_again() {
        string mebibyte = Lines.Suppress("big@example.com")
            .Replace("\"manual", new string(' ', 1 << 20) + "\"manual", StringComparison.Ordinal);
        string folder = Lines.FolderOf([Lines.Suppress("early@example.com"), .. Enumerable.Repeat(mebibyte, 64)]);
        await using (var app = await ReceiverApp.StartAsync(folder: folder)) {
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("late@example.com"))).Status);
            Assert.Contains("late@example.com", Assert.Single(EntriesIn(app, segment: 2)).GetRawText(),
                StringComparison.Ordinal);
            await app.StopAsync();
        }
        File.Delete(Path.Combine(folder, "feedback.db"));
        await using var again = await ReceiverApp.StartAsync(folder: folder);
        Assert.Equal(200, await again.StatusAsync("/suppressed/early@example.com"));
        Assert.Equal(200, await again.StatusAsync("/suppressed/late@example.com"));
        Assert.Single(await again.HistoryAsync("late@example.com"));
        Assert.Equal(200, (await again.PostAsync(again.Sns.Bounce("later@example.com"))).Status);
        Assert.Equal(2, EntriesIn(again, segment: 2).Length);
    }

    [Fact]
    public async Task Every_change_of_state_is_one_JSON_line() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        using var note = new StringContent("""{"note":"asked on the phone"}""");
        await app.Private.PutAsync("/suppressed/joe@example.com", note, TestContext.Current.CancellationToken);
        await app.Private.DeleteAsync("/suppressed/joe@example.com", TestContext.Current.CancellationToken);
        Assert.Collection(EntriesIn(app),
            entry => Assert.Equal(FakeSns.TopicArn, entry.GetProperty("message").GetProperty("TopicArn").GetString()),
            entry => Assert.Equal("""{"address":"joe@example.com","reason":"manual","note":"asked on the phone"}""",
                entry.GetProperty("suppress").GetRawText()),
            entry => Assert.Equal("""{"address":"joe@example.com"}""", entry.GetProperty("lift").GetRawText()));
        Assert.All(EntriesIn(app), entry =>
            Assert.Equal(app.Clock.GetUtcNow(), entry.GetProperty("at").GetDateTimeOffset()));
    }

    [Theory]
    [InlineData("1", "SHA1")]
    [InlineData("2", "SHA256")]
    public async Task A_message_in_the_journal_can_still_be_verified(string version, string hash) {
        await using var app = await ReceiverApp.StartAsync();
        string tricky = FakeSns.SesBounce(["jane@example.com"]) + "\n\t\"\\u00e4\u00e9\u2028<>&'\U0001F600";
        await app.PostAsync(app.Sns.Signed(tricky, version));
        var message = Assert.Single(EntriesIn(app)).GetProperty("message");
        string Field(string name) => message.GetProperty(name).GetString()!;
        byte[] canonical = Encoding.UTF8.GetBytes($"Message\n{Field("Message")}\nMessageId\n{Field("MessageId")}\n"
            + $"Subject\n{Field("Subject")}\nTimestamp\n{Field("Timestamp")}\nTopicArn\n{Field("TopicArn")}\n"
            + $"Type\n{Field("Type")}\n");
        using var certificate = X509Certificate2.CreateFromPem(app.Sns.Pem);
        Assert.Equal(app.Sns.CertUrl, Field("SigningCertURL"));
        Assert.True(certificate.GetRSAPublicKey()!.VerifyData(canonical, Convert.FromBase64String(Field("Signature")),
            new HashAlgorithmName(hash), RSASignaturePadding.Pkcs1));
    }

    [Fact]
    public async Task Nothing_on_disk_can_subscribe_or_unsubscribe() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(200, (await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation()))).Status);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation")))).Status);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
        await app.HistoryAsync("jane@example.com");
        await app.StopAsync();
        Assert.All(Directory.EnumerateFiles(app.Folder, "*", SearchOption.AllDirectories).Select(File.ReadAllBytes),
            bytes => Assert.Equal(-1, bytes.AsSpan().IndexOf("secret-"u8)));
    }

    [Fact]
    public void The_disk_itself_is_asked_to_flush_the_file_and_its_folder() {
        var file = File.OpenHandle(Path.GetTempFileName(), access: FileAccess.ReadWrite);
        file.Dispose();
        Assert.Throws<ObjectDisposedException>(() => new Disk().Flush(file)); // who did nothing would not notice
        if (OperatingSystem.IsLinux()) Assert.Throws<IOException>(() => Disk.Open("/proc/self/comm", FileShare.ReadWrite)); // a folder that cannot be flushed
    }

    [Fact]
    public async Task While_the_next_segment_cannot_be_opened_the_full_one_stays_whole_and_nothing_more_is_acknowledged() {
        string mebibyte = Lines.Suppress("big@example.com").Replace("\"manual", new string(' ', 1 << 20) + "\"manual", StringComparison.Ordinal);
        string folder = Lines.FolderOf([Lines.Suppress("early@example.com"), .. Enumerable.Repeat(mebibyte, 64)]), next = Journal.PathOf(Path.Combine(folder, "journal"), 2);
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        long before = new FileInfo(Lines.SegmentIn(folder)).Length;
        Directory.CreateDirectory(next); // so no file can be opened there
        Assert.Equal(503, (await app.PostAsync(app.Sns.Bounce("late@example.com"))).Status);
        Assert.Equal(before, new FileInfo(Lines.SegmentIn(folder)).Length);
        Directory.Delete(next);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("late@example.com"))).Status);
        Assert.Single(EntriesIn(app, 2));
    }

    [Fact]
    public async Task When_too_much_waits_for_the_disk_SNS_is_asked_to_come_again_and_what_waits_is_kept() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        using var flush = disk.HoldFlushes();
        var (first, waiting) = await BehindAFlushAsync(app, flush, 10_000);
        Assert.Equal((503, "too much is waiting"), await app.PostAsync(app.Sns.Bounce("late@example.com")));
        flush.LetGo();
        Assert.All(await Task.WhenAll([first, .. waiting]), commit => Assert.Equal(Commit.Kept, commit));
    }
}
