using System.Text.Json;

/// <summary>PUT and DELETE /suppressed/{address}: suppressing and lifting by hand.</summary>
public sealed class SuppressingTests {
    const string Jane = "/suppressed/jane@example.com";

    static async Task<(int Status, string? Type, JsonElement? Json)> SendAsync(
        ReceiverApp app, string method, string path = Jane, string? body = null) {
        using var request = new HttpRequestMessage(new HttpMethod(method), path);
        request.Content = body is null ? null : new StringContent(body);
        request.Headers.ExpectContinue = body?.Length > 200_000;
        using var response = await app.Private.SendAsync(request, TestContext.Current.CancellationToken);
        string text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        return ((int)response.StatusCode, response.Content.Headers.ContentType?.MediaType,
            text.Length == 0 ? null : JsonElement.Parse(text));
    }

    static async Task<int> PutAsync(ReceiverApp app, string? body = null) =>
        (await SendAsync(app, "PUT", body: body)).Status;

    static async Task<int> DeleteAsync(ReceiverApp app) => (await SendAsync(app, "DELETE")).Status;

    static string Bounce(ReceiverApp app, string mailId, string at) =>
        app.Sns.Bounce("jane@example.com", mailId, at: at);

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData(" \r\n")]
    [InlineData("{}")]
    [InlineData("""{"reason":"manual"}""")]
    [InlineData("""{"note":null,"reason":null}""")]
    public async Task PUT_suppresses_by_hand_and_may_be_repeated(string? body) {
        await using var app = await ReceiverApp.StartAsync();

        Assert.Equal(201, await PutAsync(app, body));
        app.Clock.Advance(TimeSpan.FromHours(1));
        Assert.Equal(200, await PutAsync(app, body));

        var answer = (await app.GetAsync(Jane)).Json;
        Assert.Equal("manual", answer.GetProperty("reason").GetString());
        Assert.Equal(app.Clock.GetUtcNow().AddHours(-1), answer.GetProperty("since").GetDateTimeOffset());
        Assert.NotEmpty(answer.GetProperty("because").GetString()!);
    }

    [Fact]
    public async Task A_note_is_shown_and_the_last_one_wins() {
        await using var app = await ReceiverApp.StartAsync();
        string longest = string.Concat(Enumerable.Repeat("\u00fc", 1000));

        Assert.Equal(201, await PutAsync(app, """{"note":"asked by phone"}"""));
        Assert.Equal("asked by phone", (await app.GetAsync(Jane)).Json.GetProperty("note").GetString());
        Assert.Equal(200, await PutAsync(app, $$"""{"reason":"manual","note":"{{longest}}"}"""));
        Assert.Equal(longest, (await app.GetAsync(Jane)).Json.GetProperty("note").GetString());
    }

    public static TheoryData<string> WrongBodies =>
    [
        "manual", "null", "[]", "{", "{} {}", """{"reason":"bounce"}""", """{"reason":"complaint"}""",
        """{"reason":5}""", """{"note":["a"]}""", """{"why":"a"}""", """{"note":"a","note":"b"}""",
        $$"""{"note":"{{new string('n', 1001)}}"}""", $$"""{"note":"{{new string('n', 100_000)}}"}""",
    ];

    [Theory, MemberData(nameof(WrongBodies))]
    public async Task A_wrong_body_suppresses_nobody_and_answers_400_as_problem_details(string body) {
        await using var app = await ReceiverApp.StartAsync();

        var (status, type, problem) = await SendAsync(app, "PUT", body: body);

        Assert.Equal((400, "application/problem+json"), (status, type));
        Assert.Equal(400, problem!.Value.GetProperty("status").GetInt32());
        Assert.Equal(404, await app.StatusAsync(Jane));
    }

    [Fact]
    public async Task A_body_of_10_MB_is_refused_as_problem_details() {
        await using var app = await ReceiverApp.StartAsync();

        var (status, type, _) = await SendAsync(app, "PUT", body: $$"""{"note":"{{new string('n', 10_000_000)}}"}""");

        Assert.Equal((400, "application/problem+json"), (status, type));
        Assert.Equal(404, await app.StatusAsync(Jane));
    }

    [Fact]
    public async Task DELETE_lifts_and_keeps_the_history() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(Bounce(app, "mail-1", "2026-11-24T07:00:00Z"));

        Assert.Equal((204, null, null), await SendAsync(app, "DELETE"));
        Assert.Equal(404, await app.StatusAsync(Jane));
        Assert.Single(await app.HistoryAsync("jane@example.com"));
        Assert.Contains("lifted on 2026-11-24", (await app.GetAsync(Jane)).Json.GetProperty("because").GetString(),
            StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-60)]
    public async Task What_is_done_by_hand_counts_in_the_same_instant_and_when_the_clock_goes_back(int minutes) {
        await using var app = await ReceiverApp.StartAsync();
        await PutAsync(app);
        await DeleteAsync(app);
        app.Clock.AdjustTime(app.Clock.GetUtcNow().AddMinutes(minutes));

        Assert.Equal(201, await PutAsync(app));
        Assert.Equal(200, await app.StatusAsync(Jane));
        Assert.Equal(204, await DeleteAsync(app));
        Assert.Equal(404, await app.StatusAsync(Jane));
    }

    [Fact]
    public async Task DELETE_of_what_is_not_suppressed_answers_404_as_problem_details() {
        await using var app = await ReceiverApp.StartAsync();

        var (status, type, problem) = await SendAsync(app, "DELETE");

        Assert.Equal((404, "application/problem+json"), (status, type));
        Assert.Equal(404, problem!.Value.GetProperty("status").GetInt32());
    }

    [Fact]
    public async Task A_complaint_after_a_note_keeps_the_note_and_one_lift_takes_both_off() {
        await using var app = await ReceiverApp.StartAsync();
        await PutAsync(app, """{"note":"asked by phone"}""");
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(["jane@example.com"])));

        var answer = (await app.GetAsync(Jane)).Json;
        Assert.Equal("complaint", answer.GetProperty("reason").GetString());
        Assert.Equal("asked by phone", answer.GetProperty("note").GetString());
        Assert.Equal(204, await DeleteAsync(app));
        Assert.Equal(404, await app.StatusAsync(Jane));
    }

    [Fact]
    public async Task Evidence_from_before_a_lift_never_suppresses_again_and_new_evidence_does() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(Bounce(app, "mail-1", "2026-11-24T07:00:00Z"));
        Assert.Equal(204, await DeleteAsync(app));

        await app.PostAsync(Bounce(app, "mail-1", "2026-11-24T07:00:00Z"));
        await app.PostAsync(Bounce(app, "mail-2", "2026-11-24T07:59:59Z"));
        Assert.Equal(404, await app.StatusAsync(Jane));
        await app.PostAsync(Bounce(app, "mail-3", "2026-11-24T08:00:01Z"));
        Assert.Equal(200, await app.StatusAsync(Jane));
    }

    [Fact]
    public async Task What_was_suppressed_and_lifted_by_hand_stays_so_over_a_restart_and_a_new_feedback_db() {
        await using var first = await ReceiverApp.StartAsync();
        await first.PostAsync(Bounce(first, "mail-1", "2026-11-24T07:00:00Z"));
        await DeleteAsync(first);
        await SendAsync(first, "PUT", "/suppressed/joe@example.com", """{"note":"asked by phone"}""");
        string joe = (await first.GetAsync("/suppressed/joe@example.com")).Json.GetRawText();
        await first.StopAsync();

        await using (var second = await ReceiverApp.StartAsync(folder: first.Folder, sns: first.Sns)) {
            await second.PostAsync(Bounce(second, "mail-2", "2026-11-24T07:30:00Z"));
            Assert.Equal(404, await second.StatusAsync(Jane));
            Assert.Equal(joe, (await second.GetAsync("/suppressed/joe@example.com")).Json.GetRawText());
            await second.StopAsync();
        }
        File.Delete(first.FeedbackDb);
        await using var third = await ReceiverApp.StartAsync(folder: first.Folder, sns: first.Sns);
        await third.PostAsync(Bounce(third, "mail-3", "2026-11-24T07:45:00Z"));
        Assert.Equal(404, await third.StatusAsync(Jane));
        Assert.Equal(3, (await third.HistoryAsync("jane@example.com")).Length);
        Assert.Equal(joe, (await third.GetAsync("/suppressed/joe@example.com")).Json.GetRawText());
    }

    [Fact]
    public async Task What_is_done_by_hand_is_503_while_it_cannot_be_kept() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        await app.PostAsync(app.Sns.Bounce("joe@example.com"));
        disk.OnWrite = WatchedDisk.WriteHalfAndFail;
        Assert.Equal((503, 503), (await PutAsync(app), (await SendAsync(app, "DELETE", "/suppressed/joe@example.com")).Status));
        Assert.Equal((404, 200), (await app.StatusAsync(Jane), await app.StatusAsync("/suppressed/joe@example.com")));
    }
}
