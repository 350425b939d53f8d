using System.Runtime.Versioning;

public sealed class JournalStartTests {
    const string Whole =
        """{"at":"2026-11-24T08:00:00+00:00","suppress":{"address":"torn@example.com","reason":"manual"}}""";

    [Theory]
    [InlineData("{\"at\":\"2026-11-24T08:00:00+00:00\",\"suppress\":{\"addr", 1)]
    [InlineData("\0", 4096)]
    [InlineData("\0\0\0\0\0\0\0\0torn@example.com\",\"reason\":\"manual\"}}\n", 1)]
    [InlineData(Whole, 1)]
    [InlineData(Whole + "{\"at\":\"2026-", 1)]
    [InlineData("{\"at\":\"2026-11-24T08:00:00+00:00\",\"suppress\":{\0\0\0\0\n", 1)]
    [InlineData("{\"at\":\"2026-11-24T08:00:00+00:00\",\"suppress\":{\0\0\0\0\"reason\":\"manual\"}}\n", 1)]
    public async Task A_torn_tail_is_cut_off_and_reported_and_all_before_it_stays(string tail, int times) {
        string folder = Lines.FolderOf([Lines.Suppress("jane@example.com"), Lines.Bounce("joe@example.com")]);
        string segment = Lines.SegmentIn(folder), before = File.ReadAllText(segment);
        File.AppendAllText(segment, string.Concat(Enumerable.Repeat(tail, times)));
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        Assert.Equal(before, File.ReadAllText(segment));
        Assert.Contains($"{tail.Length * times} bytes that were never acknowledged", app.Log.Text,
            StringComparison.Ordinal);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("new@example.com"))).Status);
        foreach (string name in (string[])["jane", "joe", "new"])
            Assert.Equal(200, await app.StatusAsync($"/suppressed/{name}@example.com"));
        Assert.Equal(404, await app.StatusAsync("/suppressed/torn@example.com"));
    }

    [Theory]
    [InlineData("")]
    [InlineData("{\"at\":\"2026-11-24T08:0")]
    [InlineData("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")]
    public async Task A_journal_that_was_torn_at_its_first_line_begins_anew(string torn) {
        string folder = Lines.FolderOf();
        File.WriteAllText(Lines.SegmentIn(folder), torn);
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status);
        Assert.Single(File.ReadAllLines(Journal.PathOf(app.JournalFolder, 1)));
    }

    [Theory]
    [InlineData("}\n", "}\r\n", 200, 200)] // through an editor, or git
    [InlineData("\"at\":\"2026-11-24T08:00:00+00:00\",\"suppress\":{\"address\":\"joe", "\"bt\":\"2026-11-24T08:00:00+00:00\",\"suppress\":{\"address\":\"joe", 200, 404)]
    [InlineData("joe@example.com\",\"reason\":\"manual\"}}", "joe@example.com\",\"reason\":\"manual\"}]", 200, 404)]
    public async Task A_line_that_has_its_end_is_never_cut_off(string text, string damaged, int jane, int joe) {
        string folder = Lines.FolderOf([Lines.Suppress("jane@example.com"), Lines.Suppress("joe@example.com")]), segment = Lines.SegmentIn(folder);
        File.WriteAllText(segment, File.ReadAllText(segment).Replace(text, damaged, StringComparison.Ordinal));
        string before = File.ReadAllText(segment);
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        Assert.Equal((jane, joe), (await app.StatusAsync("/suppressed/jane@example.com"), await app.StatusAsync("/suppressed/joe@example.com")));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("new@example.com"))).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/new@example.com"));
        await app.StopAsync();
        Assert.StartsWith(before, File.ReadAllText(segment), StringComparison.Ordinal);
        Assert.Contains(damaged, before, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_journal_with_a_segment_missing_is_refused_and_the_segment_named(int missing) {
        string folder = Lines.FolderOf([Lines.Suppress("jane@example.com")]), journal = Path.Combine(folder, "journal");
        foreach (int segment in (int[])[2, 3]) File.Copy(Lines.SegmentIn(folder), Journal.PathOf(journal, segment));
        File.Delete(Journal.PathOf(journal, missing));
        var refusal = await Assert.ThrowsAsync<Refusal>(() => ReceiverApp.StartAsync(folder: folder));
        Assert.Contains($"{missing:00000000}.ndjson is missing", refusal.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(null)]
    [InlineData(0)]
    [InlineData(31)]
    public async Task Without_the_key_of_those_who_were_forgotten_no_look_up_says_that_somebody_is_not_suppressed(int? length) {
        byte[] key = [.. Enumerable.Repeat((byte)7, 32)];
        string alias = Lines.Alias(key, "jane@example.com");
        string folder = Lines.FolderOf([Lines.Forget(alias)]), path = Path.Combine(folder, "journal", "forget.key");
        File.WriteAllBytes(path, key);
        await using (var app = await ReceiverApp.StartAsync(folder: folder)) {
            Assert.Equal(200, await app.StatusAsync("/suppressed/jane@example.com"));
            Assert.Equal(404, await app.StatusAsync("/suppressed/joe@example.com"));
            await app.CaughtUpAsync();
        }
        foreach (bool fromFile in (bool[])[true, false]) { // as LiteDB holds it, and as the journal does
            if (!fromFile) File.Delete(Path.Combine(folder, "feedback.db"));
            if (length is null) File.Delete(path); else File.WriteAllBytes(path, key[..length.Value]);
            await using var app = await ReceiverApp.StartAsync(folder: folder);
            Assert.Equal(503, await app.StatusAsync("/suppressed/jane@example.com"));
            await Eventually.TrueAsync(() => app.Log.Text.Contains("forget.key is missing or damaged", StringComparison.Ordinal));
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("new@example.com"))).Status);
        }
    }

    [Fact]
    public async Task Damage_in_the_middle_loses_only_the_lines_that_it_hit() {
        string folder = Lines.FolderOf([Lines.Suppress("jane@example.com"), "{\"at\":\0\0\0\0", "\u0001rubbish",
            Lines.Bounce("joe@example.com")]);
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        Assert.Equal(200, await app.StatusAsync("/suppressed/jane@example.com"));
        Assert.Equal(200, await app.StatusAsync("/suppressed/joe@example.com"));
        Assert.Single(await app.HistoryAsync("joe@example.com"));
    }

    [Theory]
    [InlineData(1_000)]
    [InlineData(1 << 20)]
    [InlineData(40 << 20)]
    public async Task A_journal_of_rubbish_is_refused_and_not_wiped(int length) {
        string folder = Lines.FolderOf(), segment = Lines.SegmentIn(folder);
        byte[] rubbish = new byte[length];
        new Random(length).NextBytes(rubbish);
        rubbish[0] = (byte)'P';
        File.WriteAllBytes(segment, rubbish);
        var refusal = await Assert.ThrowsAsync<Refusal>(() => ReceiverApp.StartAsync(folder: folder));
        Assert.Contains("is no journal", refusal.Message, StringComparison.Ordinal);
        Assert.True(rubbish.AsSpan().SequenceEqual(File.ReadAllBytes(segment)));
    }

    [Fact]
    public async Task A_second_receiver_on_the_folder_refuses_to_start_and_says_who_holds_it() {
        await using var app = await ReceiverApp.StartAsync();
        var refusal = await Assert.ThrowsAsync<Refusal>(() => ReceiverApp.StartAsync(folder: app.Folder));
        Assert.Contains($"process {Environment.ProcessId} holds", refusal.Message, StringComparison.Ordinal);
        Assert.Contains(app.JournalFolder, refusal.Message, StringComparison.Ordinal);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status);
    }

    [Fact]
    public async Task The_folder_is_free_again_once_its_holder_stopped() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await app.StopAsync();
        await using var next = await ReceiverApp.StartAsync(folder: app.Folder);
        Assert.Equal(200, await next.StatusAsync("/suppressed/jane@example.com"));
    }

    [Fact, UnsupportedOSPlatform("windows")]
    public async Task Only_the_owner_can_read_what_is_kept() {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "file modes are Unix's");
        await using var app = await ReceiverApp.StartAsync();
        const UnixFileMode File600 = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        Assert.Equal(File600 | UnixFileMode.UserExecute, File.GetUnixFileMode(app.JournalFolder));
        Assert.Equal(File600, File.GetUnixFileMode(Journal.PathOf(app.JournalFolder, 1)));
        Assert.Equal(File600, File.GetUnixFileMode(app.FeedbackDb));
    }

    [Theory]
    [InlineData("a-file")]
    [InlineData("a-file/below")]
    public async Task A_journal_folder_that_cannot_be_had_is_refused_in_one_line_that_names_the_setting(string path) {
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        File.WriteAllText(Path.Combine(folder, "a-file"), "not a folder");
        var refusal = await Assert.ThrowsAsync<Refusal>(() =>
            ReceiverApp.StartAsync(["Journal:Directory=" + Path.Combine(folder, path)], folder));
        Assert.StartsWith("Journal:Directory: ", refusal.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("\n", refusal.Message, StringComparison.Ordinal);
        Assert.Equal("not a folder", File.ReadAllText(Path.Combine(folder, "a-file")));
    }
}
