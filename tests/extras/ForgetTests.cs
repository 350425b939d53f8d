using System.Diagnostics;
using System.Net;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;

/// <summary>DELETE /history/{address}: a person is forgotten, and nobody else.</summary>
public sealed class ForgetTests {
    const string Jane = "jane.doe+news@example.com";
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    static async Task<int> ForgetAsync(ReceiverApp app, string address = Jane) {
        using var response = await app.Private.DeleteAsync("/history/" + Uri.EscapeDataString(address), Cancellation);
        return (int)response.StatusCode;
    }

    /// <summary>The history once it is complete; after forgetting, feedback.db is built anew.</summary>
    static Task<JsonElement[]> HistoryAsync(ReceiverApp app, string address) => app.HistoryAsync(Uri.EscapeDataString(address));

    /// <summary>The files below the folder in which one of the texts stands, in whatever case. By grep, which minds no lock, and
    /// without the mark of an open file, which has the boot's id only and is renamed when the follower writes.</summary>
    static string[] FilesWith(string folder, params string[] texts) {
        using var grep = Process.Start(new ProcessStartInfo("grep", ["-rliaF", "--exclude=feedback.db.open*", .. texts.SelectMany(text => (string[])["-e", text]), folder]) { RedirectStandardOutput = true })!;
        string found = grep.StandardOutput.ReadToEnd();
        grep.WaitForExit();
        Assert.InRange(grep.ExitCode, 0, 1);
        return found.Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    static string Escaped(string text) => string.Concat(text.Select(each => $"\\u{(int)each:x4}"));

    /// <summary>A bounce of Jane and Joe, with Jane spelled in every way there is.</summary>
    static string BounceOfBoth(ReceiverApp app, string mailId = "0100019a00000001-mail") => app.Sns.Signed($$$"""
        {"eventType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"General","feedbackId":"f","timestamp":"2026-11-24T07:00:00Z","bouncedRecipients":[
        {"emailAddress":"Jane Doe <Jane.Doe+News@Example.com>","status":"5.1.1","diagnosticCode":"smtp; 550 <jane.doe+news@example.com> unknown"},
        {"emailAddress":"joe@example.com","status":"5.1.1","diagnosticCode":"smtp; 550 joe unknown, as is JANE.DOE+NEWS@EXAMPLE.COM"}]},
        "mail":{"messageId":"{{{mailId}}}","source":"Shop <news@shop.example.com>","destination":["{{{Escaped(Jane)}}}","joe@example.com","x.jane.doe+news@example.com.au"],
        "headers":[{"name":"To","value":"\"Doe, Jane\" <JANE.doe+news@example.com>, Joe <joe@example.com>"},{"name":"Return-Path","value":"<bounce+jane.doe+news=example.com@shop.example.com>"},
        {"name":"List-Unsubscribe","value":"<https://shop.example.com/u?e=jane.doe%2Bnews%40example.com>"},{"name":"X-Emoji","value":"\ud83d\ude00"}],
        "commonHeaders":{"to":["Jane <jane.doe+news@example.com>","joe@example.com"],"subject":"Offers, also for jane.doe+news@example.com; not for x.jane.doe+news@example.com.au"},
        "tags":{"ses:configuration-set":["shop"],"user":["jane.doe+news@example.com"],"campaign":["november"]} } }
        """);

    static readonly string[] Traces = ["jane.doe", "Doe, Jane", "jane doe", Escaped(Jane)];

    [Theory]
    [InlineData("info")]
    [InlineData("bounce")]
    public async Task To_forget_what_is_no_address_takes_nothing_from_those_who_have_the_word_in_theirs(string word) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(word));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([word + "@example.com"], "mail-2")));
        Assert.Equal(204, await ForgetAsync(app, word));
        Assert.Equal("Complaint", Assert.Single(await HistoryAsync(app, word + "@example.com")).GetProperty("kind").GetString());
        await app.StopAsync();
        File.Delete(app.FeedbackDb);

        await using var again = await ReceiverApp.StartAsync(folder: app.Folder, sns: app.Sns);
        Assert.Equal((200, 200), (await again.StatusAsync($"/suppressed/{word}@example.com"), await again.StatusAsync("/suppressed/" + word)));
        Assert.DoesNotContain($"\"emailAddress\\\":\\\"{word}\\\"", File.ReadAllText(Lines.SegmentIn(app.Folder)), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_events_are_gone_from_everything_on_disk_and_the_suppression_stays() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("Jane.Doe+News@Example.com"));
        await app.PostAsync(app.Sns.Bounce("other@example.com", "0100019a00000009-mail"));
        Assert.Single(await HistoryAsync(app, Jane));

        Assert.Equal(204, await ForgetAsync(app));

        var (status, answer) = await app.GetAsync("/suppressed/" + Uri.EscapeDataString(Jane));
        Assert.Equal((200, "bounce", JsonValueKind.Null), (status, answer.GetProperty("reason").GetString(), answer.GetProperty("event").ValueKind));
        Assert.DoesNotContain("Your offers", answer.GetRawText(), StringComparison.Ordinal);
        Assert.Equal("2026-11-24T07:00:00Z", answer.GetProperty("since").GetString());
        Assert.Empty(await HistoryAsync(app, Jane));
        Assert.Single(await HistoryAsync(app, "other@example.com"));
        Assert.Equal(["other@example.com"], await ListAsync(app));
        Assert.Equal([], FilesWith(app.Folder, Traces));
        await app.StopAsync();
        Assert.Equal([], FilesWith(app.Folder, Traces));
        Assert.Empty(Directory.GetFiles(app.JournalFolder, "forgetting*"));
        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
        Assert.Equal(200, await again.StatusAsync("/suppressed/" + Uri.EscapeDataString(Jane)));
        Assert.Single(await HistoryAsync(again, "other@example.com"));
    }

    [Fact]
    public async Task A_forgetting_that_works_alarms_nobody() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(Jane));
        Assert.Single(await HistoryAsync(app, Jane));
        Assert.Equal(204, await ForgetAsync(app));
        Assert.Empty(await HistoryAsync(app, Jane));
        Assert.DoesNotMatch("(?m)^(Warning|Error|Critical)", app.Log.Text);
    }

    static async Task<string[]> ListAsync(ReceiverApp app) =>
        [.. (await app.GetAsync("/suppressed")).Json.GetProperty("suppressed").EnumerateArray().Select(each => each.GetProperty("address").GetString()!)];

    [Fact]
    public async Task A_message_that_concerns_others_too_stays_their_evidence_without_a_trace_of_the_person() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(BounceOfBoth(app));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane, "joe@example.com"])));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], "0100019a00000005-mail")));
        await app.Private.PutAsync("/suppressed/ann@example.com", new StringContent($$"""{"note":"the same person as {{Jane}}"}"""), Cancellation);
        var before = await HistoryAsync(app, "joe@example.com");
        long length = new FileInfo(Lines.SegmentIn(app.Folder)).Length;

        Assert.Equal(204, await ForgetAsync(app));

        Assert.Equal([], FilesWith(app.Folder, [.. Traces.Skip(1), "<jane.doe", "\"jane.doe"]));
        var after = await HistoryAsync(app, "joe@example.com");
        foreach (string name in (string[])["id", "kind", "at", "snsMessageId"])
            Assert.Equal(before.Select(each => each.GetProperty(name).GetString()), after.Select(each => each.GetProperty(name).GetString()));
        Assert.True(after.Single(each => each.GetProperty("kind").GetString() == "Complaint").GetProperty("possible").GetBoolean()); // there were two, so it is as uncertain as before
        Assert.Contains("november", after.Single(each => each.GetProperty("kind").GetString() == "Bounce").GetRawText(), StringComparison.Ordinal);
        foreach (string address in (string[])["joe@example.com", "ann@example.com", Uri.EscapeDataString(Jane)]) Assert.Equal(200, await app.StatusAsync("/suppressed/" + address));
        Assert.DoesNotContain("jane.doe+news@example.com\"", (await app.GetAsync("/suppressed/ann@example.com")).Json.GetRawText(), StringComparison.Ordinal);
        Assert.True(new FileInfo(Lines.SegmentIn(app.Folder)).Length >= length); // positions hold
        await app.StopAsync();

        // The address of somebody else that ends and goes on in another way is not the person's.
        string journal = File.ReadAllText(Lines.SegmentIn(app.Folder));
        Assert.Equal(2, journal.Split("x.jane.doe+news@example.com.au").Length - 1);
        Assert.Equal(2, journal.Split("jane.doe").Length - 1);
        Assert.All(journal.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(line => line.Trim().Length > 0),
            line => Assert.True(line.StartsWith("{\"at\":", StringComparison.Ordinal) && line.EndsWith('}') && JsonElement.Parse(line).ValueKind == JsonValueKind.Object));
    }

    [Fact]
    public async Task A_rebuild_afterwards_gives_the_same_suppressions() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(BounceOfBoth(app));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane, "ann@example.com"])));
        Assert.Equal(204, await ForgetAsync(app));
        string[] asked = ["joe@example.com", "ann@example.com", Jane];
        Task<string[]> AnswersAsync(ReceiverApp of) => Task.WhenAll(asked.Select(async each => {
            var json = (await of.GetAsync("/suppressed/" + Uri.EscapeDataString(each))).Json;
            return $"{json.GetProperty("reason").GetString()} {json.GetProperty("since").GetString()}";
        }));
        string[] before = await AnswersAsync(app);
        await app.StopAsync();
        foreach (string file in Directory.GetFiles(app.Folder, "feedback*")) File.Delete(file);

        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);

        Assert.Equal(before, await AnswersAsync(again));
        Assert.Equal(["bounce", "complaint", "complaint"], before.Select(each => each.Split(' ')[0]));
    }

    [Fact]
    public async Task What_is_done_by_hand_and_imported_is_found_under_the_hash_and_blanked_in_the_journal() {
        await using var app = await ReceiverApp.StartAsync();
        string path = "/suppressed/" + Uri.EscapeDataString(Jane);
        await app.Private.PutAsync(path, new StringContent("""{"note":"Jane Doe, by phone"}"""), Cancellation);
        await app.Private.DeleteAsync(path, Cancellation);
        app.Clock.Advance(TimeSpan.FromMinutes(1));
        await app.Private.PutAsync(path, null, Cancellation);

        Assert.Equal(204, await ForgetAsync(app));
        Assert.Equal([], FilesWith(app.Folder, Traces));

        using (var import = await app.Private.PostAsync("/suppressed", new StringContent("email\n" + Jane + "\n"), Cancellation))
            Assert.Equal("""{"added":0,"already":1,"skipped":[],"moreSkipped":0}""", await import.Content.ReadAsStringAsync(Cancellation));
        Assert.Equal([], FilesWith(app.Folder, Traces));
        using (var put = await app.Private.PutAsync(path, null, Cancellation)) Assert.Equal(HttpStatusCode.OK, put.StatusCode);
        using (var lift = await app.Private.DeleteAsync(path, Cancellation)) Assert.Equal(HttpStatusCode.NoContent, lift.StatusCode);
        Assert.Equal(404, await app.StatusAsync(path));
        using (var put = await app.Private.PutAsync(path, null, Cancellation)) Assert.Equal(HttpStatusCode.Created, put.StatusCode);
        Assert.Empty(await ListAsync(app));
        using var sendable = await app.Private.PostAsync("/sendable", new StringContent(Jane + "\nfree@example.com\n"), Cancellation);
        Assert.Equal("free@example.com\n", await sendable.Content.ReadAsStringAsync(Cancellation));
    }

    [Fact]
    public async Task An_event_of_later_is_new_history_and_can_be_forgotten_again() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(Jane));
        Assert.Equal(204, await ForgetAsync(app));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], "0100019a00000002-mail")));

        Assert.Equal("complaint", (await app.GetAsync("/suppressed/" + Uri.EscapeDataString(Jane))).Json.GetProperty("reason").GetString());
        Assert.Single(await HistoryAsync(app, Jane));
        Assert.Equal(204, await ForgetAsync(app));
        Assert.Equal([], FilesWith(app.Folder, Traces));
        Assert.Equal("complaint", (await app.GetAsync("/suppressed/" + Uri.EscapeDataString(Jane))).Json.GetProperty("reason").GetString());
    }

    [Theory]
    [InlineData("nobody@example.com", 404)]
    [InlineData("no%20address", 400)]
    [InlineData("", 400)]
    public async Task Of_whom_nothing_is_known_nothing_is_forgotten(string address, int status) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(Jane));
        using var response = await app.Private.DeleteAsync("/history/" + address, Cancellation);
        Assert.Equal((status, "application/problem+json"), ((int)response.StatusCode, response.Content.Headers.ContentType?.MediaType));
        Assert.Single(await HistoryAsync(app, Jane));
        Assert.Empty(Directory.GetFiles(app.JournalFolder, "forget*"));
    }

    [Fact]
    public async Task Who_was_only_delivered_to_is_forgotten_without_a_hash() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane)));
        Assert.Single(await HistoryAsync(app, Jane));
        Assert.Equal(204, await ForgetAsync(app));
        Assert.Equal([], FilesWith(app.Folder, Traces));
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Uri.EscapeDataString(Jane)));
        Assert.Empty(await HistoryAsync(app, Jane));
        Assert.Equal(404, await ForgetAsync(app));
        Assert.DoesNotContain("\"known\"", File.ReadAllText(Lines.SegmentIn(app.Folder)), StringComparison.Ordinal);
        Assert.DoesNotContain("forgotten:", File.ReadAllText(Lines.SegmentIn(app.Folder)).Replace("\"forget\":{\"alias\":\"forgotten:", "", StringComparison.Ordinal), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Soft_bounces_of_before_are_forgotten_and_those_of_after_begin_anew() {
        await using var app = await ReceiverApp.StartAsync(["Suppression:SoftBounceLimit=3"]);
        Task<(int Status, string Line)> SoftAsync(string mailId) => app.PostAsync(app.Sns.Bounce(Jane, mailId, "Transient", "MailboxFull"));
        await SoftAsync("mail-1");
        await SoftAsync("mail-2");
        Assert.Equal(2, (await HistoryAsync(app, Jane)).Length);

        Assert.Equal(204, await ForgetAsync(app));
        Assert.Equal(404, await ForgetAsync(app));

        await SoftAsync("mail-3");
        await SoftAsync("mail-4");
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Uri.EscapeDataString(Jane)));
        Assert.Equal([], FilesWith(app.Folder, "mail-1", "mail-2"));
        await SoftAsync("mail-5");
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Uri.EscapeDataString(Jane)));
    }

    [Fact]
    public async Task A_lift_is_remembered_so_that_evidence_from_before_it_suppresses_nobody() {
        await using var app = await ReceiverApp.StartAsync();
        string path = "/suppressed/" + Uri.EscapeDataString(Jane);
        await app.Private.PutAsync(path, null, Cancellation);
        await app.Private.DeleteAsync(path, Cancellation);
        Assert.Equal(204, await ForgetAsync(app));
        await app.PostAsync(app.Sns.Bounce(Jane));
        Assert.Equal(404, await app.StatusAsync(path));
    }

    [Fact]
    public async Task What_somebody_wanted_last_is_remembered_so_that_an_older_wish_counts_no_more() {
        await using var app = await ReceiverApp.StartAsync();
        Task<(int Status, string Line)> WantsAsync(string at, string all) => app.PostAsync(app.Sns.Signed($$$"""
            {"eventType":"Subscription","subscription":{"timestamp":"{{{at}}}","newTopicPreferences":{"unsubscribeAll":{{{all}}}} },
            "mail":{"messageId":"mail-1","destination":["{{{Jane}}}"]} }
            """));
        await WantsAsync("2026-11-24T07:00:00Z", "true");
        await WantsAsync("2026-11-24T07:10:00Z", "false");
        Assert.Equal(204, await ForgetAsync(app));
        await WantsAsync("2026-11-24T07:05:00Z", "true");
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Uri.EscapeDataString(Jane)));
    }

    [Fact]
    public async Task A_body_that_was_not_believed_is_blanked_when_it_names_the_person() {
        string[] bodies = ["of jane.doe+news@example.com", "of somebody else"];
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOf(bodies.Select(body =>
            $$$"""{"at":"2026-11-24T08:00:00+00:00","refused":{"why":"no envelope","body":"{{{body}}}"}}""")));
        await app.PostAsync(app.Sns.Bounce(Jane));
        Assert.Equal(204, await ForgetAsync(app));
        Assert.Equal([], FilesWith(app.JournalFolder, Traces));
        Assert.Contains("of somebody else", File.ReadAllText(Lines.SegmentIn(app.Folder)), StringComparison.Ordinal);
    }

    [Fact]
    public async Task While_the_journal_is_read_nobody_is_forgotten() {
        await using var first = await ReceiverApp.StartAsync();
        await first.PostAsync(first.Sns.Bounce(Jane));
        Assert.Single(await HistoryAsync(first, Jane));
        await first.StopAsync();
        File.AppendAllText(Lines.SegmentIn(first.Folder), Lines.Bounce("joe@example.com") + Lines.Bounce("ann@example.com"));
        using var reading = new HeldLog("reading the journal");
        await using var app = await ReceiverApp.StartAsync(folder: first.Folder, with: reading.Hold);
        using var released = reading.Reached; // a receiver that is held cannot stop
        await reading.Reached.ReachedAsync();
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Uri.EscapeDataString(Jane)));
        Assert.Equal(503, await ForgetAsync(app));
        Assert.Empty(Directory.GetFiles(app.JournalFolder, "forget*"));
        reading.Reached.LetGo();
    }

    [Fact]
    public async Task Nobody_is_called_unknown_while_what_was_kept_cannot_be_read_back() {
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        Directory.CreateDirectory(Path.Combine(folder, "feedback.db.open")); // where a file must be before the first write to feedback.db
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane)));
        Assert.Equal(503, await ForgetAsync(app));
    }

    [Fact]
    public async Task What_lay_aside_is_deleted_too() {
        await using var first = await ReceiverApp.StartAsync();
        await first.PostAsync(first.Sns.Bounce(Jane));
        await first.StopAsync();
        File.WriteAllText(Path.Combine(first.Folder, "feedback.db.20260101T000000.0.aside"), Jane);
        File.WriteAllText(Path.Combine(first.Folder, "feedback-log.db.20260101T000000.0.aside"), Jane);
        await using var app = await ReceiverApp.StartAsync(folder: first.Folder);
        Assert.Equal(204, await ForgetAsync(app));
        Assert.Equal([], FilesWith(app.Folder, Traces));
        Assert.Empty(Directory.GetFiles(app.Folder, "*.aside"));
    }

    [Theory]
    [InlineData("before the journal knew")]
    [InlineData("while lines were rewritten")]
    public async Task A_crash_in_the_middle_is_followed_by_another_run_at_the_start(string when) {
        await using var first = await ReceiverApp.StartAsync();
        await first.PostAsync(BounceOfBoth(first));
        await first.PostAsync(first.Sns.Bounce(Jane, "0100019a00000007-mail"));
        Assert.Single(await HistoryAsync(first, "joe@example.com"));
        if (when == "while lines were rewritten") {
            Directory.CreateDirectory(Lines.SegmentIn(first.Folder) + ".part"); // so that no segment can be written
            Assert.Equal(503, await ForgetAsync(first));
            Assert.Equal(200, await first.StatusAsync("/suppressed/" + Uri.EscapeDataString(Jane)));
        }
        await first.StopAsync();
        if (Directory.Exists(Lines.SegmentIn(first.Folder) + ".part")) Directory.Delete(Lines.SegmentIn(first.Folder) + ".part");
        File.WriteAllText(Path.Combine(first.JournalFolder, "forgetting"), Jane);
        File.WriteAllText(Lines.SegmentIn(first.Folder) + ".part", "half of " + Jane);

        await using var app = await ReceiverApp.StartAsync(folder: first.Folder);

        await Eventually.TrueAsync(() => !File.Exists(Path.Combine(app.JournalFolder, "forgetting")));
        Assert.Equal([], FilesWith(app.Folder, "<jane.doe", "\"jane.doe", "jane doe", "half of"));
        Assert.Single(await HistoryAsync(app, "joe@example.com"));
        Assert.Empty(await HistoryAsync(app, Jane));
        foreach (string address in (string[])["joe@example.com", Jane]) Assert.Equal(200, await app.StatusAsync("/suppressed/" + Uri.EscapeDataString(address)));
    }

    [Fact]
    public async Task What_could_not_be_done_goes_on_at_the_next_try_even_for_somebody_else() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(Jane));
        await app.PostAsync(app.Sns.Bounce("ann@example.com", "0100019a00000002-mail"));
        Directory.CreateDirectory(Lines.SegmentIn(app.Folder) + ".part");
        Assert.Equal(503, await ForgetAsync(app));
        Assert.Equal(503, await ForgetAsync(app, "ann@example.com"));
        Assert.Equal(Jane, File.ReadAllText(Path.Combine(app.JournalFolder, "forgetting")));
        Directory.Delete(Lines.SegmentIn(app.Folder) + ".part");

        Assert.Equal(204, await ForgetAsync(app, "ann@example.com"));

        Assert.Equal([], FilesWith(app.Folder, [.. Traces, "ann@example.com"]));
        foreach (string address in (string[])["ann@example.com", Jane]) Assert.Equal(200, await app.StatusAsync("/suppressed/" + Uri.EscapeDataString(address)));
    }

    [Fact]
    public async Task Two_at_once_while_messages_come_forget_both_and_lose_nobody() {
        string[] forgotten = [.. Enumerable.Range(0, 20).Select(number => $"a{number * 10}@example.com")];
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOfBounces(400));
        Assert.Single(await HistoryAsync(app, "a399@example.com"));
        using var done = new CancellationTokenSource();
        var posts = Task.Run(async () => {
            int posted = 0;
            for (; !done.IsCancellationRequested; posted++) Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce($"new{posted}@example.com", $"0100019a0000-new-{posted}"))).Status);
            return posted;
        }, Cancellation);
        var looks = Task.Run(async () => {
            while (!done.IsCancellationRequested)
                foreach (string each in forgotten) Assert.Equal(200, await app.StatusAsync("/suppressed/" + each));
        }, Cancellation);

        async Task<int> ForgetAllAsync(IEnumerable<string> half) {
            foreach (string each in half) if (await ForgetAsync(app, each) is not 204 and var status) return status;
            return 204;
        }
        int[] statuses = await Task.WhenAll(ForgetAllAsync(forgotten.Take(10)), ForgetAllAsync(forgotten.Skip(10)));
        await done.CancelAsync();
        int count = await posts;
        await looks;

        Assert.Equal([204, 204], statuses);
        Assert.Equal([], FilesWith(app.JournalFolder, [.. forgotten.Select(each => "\"" + each), .. forgotten.Select(each => "\\\"" + each + "\\\"")]));
        Assert.InRange(count, 1, int.MaxValue);
        for (int number = 0; number < 400; number++) {
            Assert.Equal(200, await app.StatusAsync($"/suppressed/a{number}@example.com"));
            Assert.Equal(number % 10 == 0 && number < 200 ? 0 : 1, (await HistoryAsync(app, $"a{number}@example.com")).Length);
        }
        for (int number = 0; number < count; number++) Assert.Single(await HistoryAsync(app, $"new{number}@example.com"));
    }

    [Fact]
    public async Task Whose_wish_it_was_is_as_uncertain_as_before_when_one_of_two_is_forgotten() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed($$$"""
            {"eventType":"Subscription","subscription":{"timestamp":"2026-11-24T07:00:00Z","newTopicPreferences":{"unsubscribeAll":true} },
            "mail":{"messageId":"mail-1","destination":["{{{Jane}}}","joe@example.com"]} }
            """));
        Assert.Equal(204, await ForgetAsync(app));
        await app.StopAsync();
        foreach (string file in Directory.GetFiles(app.Folder, "feedback*")) File.Delete(file);

        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);

        Assert.Equal(404, await again.StatusAsync("/suppressed/joe@example.com"));
        Assert.Single(await HistoryAsync(again, "joe@example.com"));
    }

    [Fact]
    public async Task Who_reads_events_while_the_file_goes_is_told_so_and_given_no_part_for_the_whole() {
        await using var app = await ReceiverApp.StartAsync();
        foreach (string address in (string[])["ann@example.com", Jane, "joe@example.com"]) await app.PostAsync(app.Sns.Bounce(address));
        var store = app.Services.GetRequiredService<IFeedbackStore>();
        await using var events = store.EventsAsync(new(), Cancellation).GetAsyncEnumerator(Cancellation);
        Assert.True(await events.MoveNextAsync());
        Assert.Equal(204, await ForgetAsync(app));
        Assert.Single(await HistoryAsync(app, "joe@example.com"));
        await Assert.ThrowsAsync<Unavailable>(() => events.MoveNextAsync().AsTask());
        Assert.Equal(2, await store.EventsAsync(new(), Cancellation).CountAsync(Cancellation));
    }

    // A second would mean that the first did not know all, and a kill between them would lose what it did not.
    static void OneLineForgets(ReceiverApp app) => Assert.Single(Directory.GetFiles(app.JournalFolder, "*.ndjson").SelectMany(File.ReadAllLines),
        line => line.Contains("\"forget\":", StringComparison.Ordinal));

    [Fact]
    public async Task What_the_journal_takes_just_before_the_person_is_forgotten_counts() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        await app.Private.PutAsync("/suppressed/" + Uri.EscapeDataString(Jane), null, Cancellation);
        using var hold = disk.HoldFlushes();
        var post = app.PostAsync(app.Sns.Bounce(Jane));
        await hold.ReachedAsync();
        var forget = ForgetAsync(app);
        await Eventually.TrueAsync(() => File.Exists(Path.Combine(app.JournalFolder, "forgetting")));
        await Task.Delay(200, Cancellation); // until its line waits, too; were it later, the bounce would only be seen at once
        hold.LetGo();

        Assert.Equal((200, 204), ((await post).Status, await forget));
        OneLineForgets(app);
        await app.StopAsync();
        foreach (string file in Directory.GetFiles(app.Folder, "feedback*")) File.Delete(file);

        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
        Assert.Equal("bounce", (await again.GetAsync("/suppressed/" + Uri.EscapeDataString(Jane))).Json.GetProperty("reason").GetString());
    }

    [Theory]
    [InlineData("lifted before it, a complaint after it", 200)]
    [InlineData("lifted before it", 404)]
    public async Task What_the_journal_takes_just_before_and_just_after_the_line_that_forgets_counts(string what, int status) {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        string path = "/suppressed/" + Uri.EscapeDataString(Jane);
        await app.PostAsync(app.Sns.Bounce(Jane));
        using var hold = disk.HoldFlushes();
        var lift = app.Private.DeleteAsync(path, Cancellation);
        await hold.ReachedAsync();
        var forget = ForgetAsync(app);
        await Eventually.TrueAsync(() => File.Exists(Path.Combine(app.JournalFolder, "forgetting")));
        await Task.Delay(200, Cancellation); // until its line waits, too
        string[] addresses = what.Contains("complaint", StringComparison.Ordinal) ? [Jane] : ["joe@example.com"];
        var post = app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(addresses, "0100019a00000003-mail", at: "2026-11-24T09:00:00Z")));
        await Task.Delay(200, Cancellation); // so does the complaint
        hold.LetGo();

        Assert.Equal((200, 204, HttpStatusCode.NoContent), ((await post).Status, await forget, (await lift).StatusCode));
        OneLineForgets(app);
        Assert.Equal(status, await app.StatusAsync(path));
        await app.StopAsync();
        foreach (string file in Directory.GetFiles(app.Folder, "feedback*")) File.Delete(file);

        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
        Assert.Equal(status, await again.StatusAsync(path));
    }

    [Fact]
    public async Task A_message_that_comes_while_its_person_is_forgotten_still_suppresses() {
        for (int round = 0; round < 10; round++) {
            await using var app = await ReceiverApp.StartAsync();
            await app.Private.PutAsync("/suppressed/" + Uri.EscapeDataString(Jane), null, Cancellation);
            var forgets = ForgetAsync(app);
            var posts = Task.WhenAll(Enumerable.Range(0, 20).Select(number => app.PostAsync(app.Sns.Bounce(Jane, $"0100019a00000002-{number}"))));
            Assert.Equal(204, await forgets);
            Assert.All(await posts, answer => Assert.Equal(200, answer.Status));
            Assert.Equal("bounce", (await app.GetAsync("/suppressed/" + Uri.EscapeDataString(Jane))).Json.GetProperty("reason").GetString());
            await app.StopAsync();
            foreach (string file in Directory.GetFiles(app.Folder, "feedback*")) File.Delete(file);
            await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
            Assert.Equal("bounce", (await again.GetAsync("/suppressed/" + Uri.EscapeDataString(Jane))).Json.GetProperty("reason").GetString());
        }
    }

    [Theory]
    [InlineData(@"""\ud83d"":[""x""]")]
    [InlineData(@"""\ud83d and a name that is longer than any of SES's"":[""x""]")]
    [InlineData(@"""\ude00jane.doe+news@example.com"":[""x""]")]
    [InlineData(@"""x"":[""\ud83d""]")]
    [InlineData(@"""x"":[{""\ud83d"":""\ude00""}]")]
    public async Task Half_an_emoji_in_a_message_of_somebody_else_holds_nothing_up(string tag) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(Jane));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["joe@example.com"], "0100019a00000002-mail").Replace("\"tags\":{", "\"linkTags\":{" + tag + "},\"tags\":{" + tag + ",", StringComparison.Ordinal)));
        await app.PostAsync(app.Sns.Signed("""
            {"eventType":"Bounce","bounce":{"bounceType":"Permanent","bouncedRecipients":[{"emailAddress":"jane.doe+news@example.com"},{"emailAddress":"joe@example.com"}]},
            "mail":{"messageId":"0100019a00000004-mail","tags":{"\ud83d":["\ude00 \\ud83d"],"user":["jane.doe+news@example.com"]} } }
            """));

        Assert.Equal(204, await ForgetAsync(app));

        Assert.Equal([], FilesWith(app.Folder, [.. Traces.Skip(1), "<jane.doe", "\"jane.doe"]));
        Assert.Empty(await HistoryAsync(app, Jane));
        Assert.Equal(2, (await HistoryAsync(app, "joe@example.com")).Length);
    }

    [Theory]
    [InlineData("smtp; 550 %EF%BF%BE")]
    [InlineData("smtp; 550 \\ufffe")]
    public async Task What_cannot_be_normalized_in_others_events_holds_no_forgetting_up(string diagnostic) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["joe@example.com"]).Replace("user unknown", diagnostic, StringComparison.Ordinal)));
        await app.PostAsync(app.Sns.Bounce(Jane, "0100019a00000002-mail"));
        Assert.Equal(204, await ForgetAsync(app));
        Assert.Equal([], FilesWith(app.Folder, Traces));
    }

    [Theory]
    [InlineData("\ud83c\udf89")]
    [InlineData("\ue000")]
    public async Task Signs_that_are_longer_when_they_are_escaped_hold_no_forgetting_up(string sign) {
        await using var app = await ReceiverApp.StartAsync();
        string signs = string.Concat(Enumerable.Repeat(sign, 40));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["joe@example.com"]).Replace("Your offers", signs + ", " + Jane, StringComparison.Ordinal)
            .Replace("\"tags\":{", $"\"tags\":{{\"{signs}\":[\"{Jane}\"],", StringComparison.Ordinal)));
        await app.PostAsync(app.Sns.Bounce(Jane, "0100019a00000002-mail"));
        Assert.Equal(204, await ForgetAsync(app));
        Assert.Equal([], FilesWith(app.Folder, Traces));
        Assert.Equal(signs, Assert.Single(await HistoryAsync(app, "joe@example.com")).GetProperty("subject").GetString());
    }

    [Fact]
    public async Task A_note_of_whom_to_forget_that_is_empty_means_nobody() {
        string folder = Lines.FolderOf(Lines.Bounce(Jane));
        File.WriteAllText(Path.Combine(folder, "journal", "forgetting"), "");
        await using var app = await ReceiverApp.StartAsync(folder: folder);
        Assert.Equal(204, await ForgetAsync(app));
    }

    /// <summary>Fails whoever would forget somebody, once.</summary>
    sealed class FailingClock() : Microsoft.Extensions.Time.Testing.FakeTimeProvider(new(2026, 11, 24, 8, 0, 0, TimeSpan.Zero)) {
        int _failures;
        public override DateTimeOffset GetUtcNow() =>
            Environment.StackTrace.Contains("CommitForgetAsync", StringComparison.Ordinal) && Interlocked.Increment(ref _failures) == 1
                ? throw new InvalidOperationException() : base.GetUtcNow();
    }

    [Fact]
    public async Task Whatever_stops_it_after_a_start_is_told_and_it_is_tried_again() {
        string folder = Lines.FolderOf(Lines.Bounce(Jane));
        string forgetting = Path.Combine(folder, "journal", "forgetting");
        File.WriteAllText(forgetting, Jane);
        var clock = new FailingClock();
        await using var app = await ReceiverApp.StartAsync(folder: folder, with: builder => builder.Services.AddSingleton<TimeProvider>(clock));

        await Eventually.TrueAsync(() => app.Log.Text.Contains("cannot be forgotten now (InvalidOperationException)", StringComparison.Ordinal));
        Assert.True(File.Exists(forgetting));
        await Eventually.TrueAsync(() => {
            clock.Advance(TimeSpan.FromSeconds(10));
            return !File.Exists(forgetting);
        });
        Assert.Equal([], FilesWith(app.Folder, Traces));
    }

    [Theory]
    [InlineData("a@m\u00fcnchen.example", "A@M\u00dcNCHEN.example")]
    [InlineData("jos\u00e9@example.com", "jose\u0301@example.com")]
    [InlineData("\"jane doe\"@example.com", "\\\"jane doe\\\"@example.com")]
    public async Task An_international_or_a_quoted_address_is_forgotten_too(string address, string spelled) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["joe@example.com"]).Replace("\"destination\":[", $"\"destination\":[\"{spelled}\",", StringComparison.Ordinal)
            .Replace("Your offers", $"For {spelled}", StringComparison.Ordinal)));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce([address], "0100019a00000002-mail")));
        Assert.Equal(204, await ForgetAsync(app, address));
        Assert.Equal([], FilesWith(app.Folder, spelled, spelled.Replace("\\", "\\\\", StringComparison.Ordinal), Address.Key(address)));
        Assert.Single(await HistoryAsync(app, "joe@example.com"));
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Uri.EscapeDataString(address)));
    }

    [Fact]
    public async Task What_stays_and_the_key_of_the_hash_are_for_the_owner_alone() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(Jane));
        Assert.Equal(204, await ForgetAsync(app));
        Assert.All(Directory.GetFiles(app.JournalFolder).Where(path => !path.EndsWith("holder", StringComparison.Ordinal)), path =>
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(path)));
        Assert.Equal(32, new FileInfo(Path.Combine(app.JournalFolder, "forget.key")).Length);
        Assert.DoesNotContain("jane", app.Log.Text, StringComparison.OrdinalIgnoreCase);
    }
}
