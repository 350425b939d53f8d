using System.Text.Json;
using LiteDB;

/// <summary>GET /history/{address}, and what lies in feedback.db.</summary>
public sealed class HistoryTests {
    const string Jane = "jane@example.com";

    static string Event(ReceiverApp app, string kind, string body, string format = "eventType") =>
        app.Sns.Signed($$$"""
            {"{{{format}}}":"{{{kind}}}","{{{body}}}":{"timestamp":"2026-11-24T07:00:00Z","recipients":["{{{Jane}}}"],
            "bouncedRecipients":[{"emailAddress":"{{{Jane}}}"}],"complainedRecipients":[{"emailAddress":"{{{Jane}}}"}],
            "delayedRecipients":[{"emailAddress":"{{{Jane}}}"}]},
            "mail":{"messageId":"mail-1","destination":["{{{Jane}}}"]}}
            """);

    /// <summary>Waits until everything is in feedback.db, and stops.</summary>
    static async Task<LiteDatabase> OpenAfterStopAsync(ReceiverApp app) {
        await app.CaughtUpAsync();
        await app.StopAsync();
        return new LiteDatabase(app.FeedbackDb);
    }

    static string?[] Texts(IEnumerable<JsonElement> events, string name) =>
        [.. events.Select(each => each.GetProperty(name).GetString())];

    [Fact]
    public async Task An_event_is_shown_with_what_the_other_side_said_and_the_mail_s_subject() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("Jane@Example.com"));
        await app.CaughtUpAsync();

        var (status, json) = await app.GetAsync("/history/JANE@example.com?limit=1");
        var shown = json.GetProperty("events")[0];

        Assert.Equal(200, status);
        Assert.True(json.GetProperty("complete").GetBoolean());
        Assert.Equal(app.Clock.GetUtcNow().AddHours(-1), shown.GetProperty("at").GetDateTimeOffset());
        string[] names = ["kind", "type", "subtype", "status", "recipient", "subject", "configurationSet", "mailId"];
        Assert.All(names, name => Assert.True(shown.TryGetProperty(name, out _), $"{name} is not in {shown}"));
        Assert.Equal("Bounce Permanent General 5.1.1 Jane@Example.com Your offers shop 0100019a00000000-mail",
            string.Join(' ', names.Select(name => shown.GetProperty(name).GetString())));
        Assert.Equal("smtp; 550 5.1.1 user unknown", shown.GetProperty("detail").GetString());
        Assert.Equal("november", shown.GetProperty("tags").GetProperty("campaign")[0].GetString());
    }

    [Fact]
    public async Task A_history_ends_where_four_MiB_are_full() {
        await using var app = await ReceiverApp.StartAsync();
        string said = new('x', 200_000);
        for (int i = 0; i < 30; i++) {
            string ses = FakeSns.SesBounce([Jane], $"mail-{i}").Replace("550 5.1.1 user unknown", said, StringComparison.Ordinal);
            Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(ses))).Status);
        }
        Assert.Equal(21, (await app.HistoryAsync(Jane)).Length); // so many of 200,000 are more than 4 MiB
    }

    [Fact]
    public async Task The_newest_event_comes_first_whenever_it_arrived() {
        await using var app = await ReceiverApp.StartAsync();
        foreach (string minute in (string[])["02", "05", "01", "04", "03"])
            await app.PostAsync(app.Sns.Bounce(Jane, "mail-" + minute, at: $"2026-11-24T07:{minute}:00Z"));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], "mail-06", at: "2026-11-24T07:06:00Z")));

        var times = Texts(await app.HistoryAsync(Jane), "at");
        Assert.Equal(["06", "05", "04", "03", "02", "01"], times.Select(at => at![14..16]));
    }

    [Fact]
    public async Task Every_kind_is_visible() {
        await using var app = await ReceiverApp.StartAsync();
        string[] kinds =
        [
            "Bounce", "Click", "Complaint", "Delivery", "DeliveryDelay", "Invented", "Open", "Reject", "Send",
            "Subscription",
        ];
        foreach (string kind in kinds)
            await app.PostAsync(Event(app, kind, char.ToLowerInvariant(kind[0]) + kind[1..]));
        await app.PostAsync(Event(app, "Rendering Failure", "failure"));

        Assert.Equal(kinds.Append("Rendering Failure").Order(), Texts(await app.HistoryAsync(Jane), "kind").Order());
    }

    [Fact]
    public async Task A_retry_and_the_other_format_count_once() {
        await using var app = await ReceiverApp.StartAsync();
        string bounce = Event(app, "Bounce", "bounce");
        foreach (string body in (string[])[bounce, bounce, Event(app, "Bounce", "bounce", "notificationType")])
            Assert.Equal(200, (await app.PostAsync(body)).Status);

        Assert.Single(await app.HistoryAsync(Jane));
        using var database = await OpenAfterStopAsync(app);
        Assert.Equal([1], database.GetCollection("daily").FindAll().Select(day => day["n"].AsInt64));
    }

    [Fact]
    public async Task An_open_and_another_open_of_the_same_mail_are_two() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(Event(app, "Open", "open"));
        await app.PostAsync(Event(app, "Open", "open"));

        Assert.Equal(2, (await app.HistoryAsync(Jane)).Length);
    }

    [Fact]
    public async Task A_thousand_parallel_posts_of_one_envelope_count_once() {
        await using var app = await ReceiverApp.StartAsync();
        string bounce = app.Sns.Bounce(Jane);

        var answers = await Task.WhenAll(Enumerable.Range(0, 1000).Select(_ => app.PostAsync(bounce)));

        Assert.All(answers, answer => Assert.Equal((200, "kept"), answer));
        Assert.Single(await app.HistoryAsync(Jane));
        using var database = await OpenAfterStopAsync(app);
        var day = Assert.Single(database.GetCollection("daily").FindAll());
        Assert.Equal(("2026-11-24|Bounce|Permanent|General", 1), (day["_id"].AsString, day["n"].AsInt64));
    }

    [Fact]
    public async Task Every_recipient_and_every_mail_counts_in_its_day() {
        await using var app = await ReceiverApp.StartAsync();
        string[] bounced = [Jane, "joe@example.com", "bounce@simulator.amazonses.com"];
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(bounced)));
        await app.PostAsync(app.Sns.Bounce(Jane, "mail-2", at: "2026-11-23T23:59:59.999Z"));
        await app.PostAsync(app.Sns.Bounce(Jane, "mail-3", at: "2026-11-24T00:59:59+01:00"));

        using var database = await OpenAfterStopAsync(app);
        var days = database.GetCollection("daily").FindAll()
            .ToDictionary(day => day["_id"].AsString, day => day["n"].AsInt64);
        Assert.Equal(new Dictionary<string, long> {
            ["2026-11-23|Bounce|Permanent|General"] = 2,
            ["2026-11-24|Bounce|Permanent|General"] = 2,
            ["2026-11-24|Bounce|Permanent|General|simulator"] = 1,
        }, days);
    }

    [Fact]
    public async Task An_unknown_address_has_an_empty_history() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com.au"));

        var (status, json) = await app.GetAsync("/history/jane@example.com");

        Assert.Equal((200, 0), (status, json.GetProperty("events").GetArrayLength()));
        Assert.Equal("jane@example.com", json.GetProperty("address").GetString());
    }

    [Fact]
    public async Task The_newest_1000_events_are_shown() {
        await using var app = await ReceiverApp.StartAsync();
        var first = new DateTimeOffset(2026, 11, 24, 7, 0, 0, TimeSpan.Zero);
        foreach (int[] together in Enumerable.Range(0, 1002).Chunk(501)) // a listener takes a thousand connections
            await Task.WhenAll(together.Select(second => app.PostAsync(app.Sns.Bounce(Jane, $"mail-{second}", at: first.AddSeconds(second).ToString("O")))));

        var events = await app.HistoryAsync(Jane);

        Assert.Equal((1000, first.AddSeconds(1001), first.AddSeconds(2)), (events.Length,
            events[0].GetProperty("at").GetDateTimeOffset(), events[^1].GetProperty("at").GetDateTimeOffset()));
    }

    [Fact]
    public async Task Events_outlive_a_restart() {
        await using var first = await ReceiverApp.StartAsync();
        await first.PostAsync(first.Sns.Bounce(Jane));
        string before = (await first.WholeHistoryAsync(Jane)).GetRawText();
        await first.StopAsync();

        await using var second = await ReceiverApp.StartAsync(folder: first.Folder, sns: first.Sns);

        Assert.Equal(before, (await second.WholeHistoryAsync(Jane)).GetRawText());
    }

    [Fact]
    public async Task What_cannot_be_read_is_kept_in_unread_with_the_reason() {
        await using var app = await ReceiverApp.StartAsync();
        string[] texts = ["The shop is back \u2603", """{"AlarmName":"cpu"}""", """{"eventType":"Bounce"}"""];
        foreach (string text in texts) Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(text))).Status);

        using var database = await OpenAfterStopAsync(app);
        var unread = database.GetCollection("unread").FindAll().OrderBy(each => each["_id"].AsString).ToArray();
        Assert.Equal(texts, unread.Select(each => each["message"].AsString));
        Assert.Equal(["not JSON", "no eventType or notificationType", "names no recipient"],
            unread.Select(each => each["why"].AsString));
        Assert.All(unread, each => Assert.Equal(FakeSns.TopicArn, each["topic_arn"].AsString));
    }

    [Theory]
    [InlineData("Bounce", "bounce", "email_bounces", "bounced_at", true)]
    [InlineData("Complaint", "complaint", "email_complaints", "complained_at", true)]
    [InlineData("Delivery", "delivery", "email_events", "at", false)]
    public async Task Each_kind_lies_in_its_collection_and_the_mail_beside_bounces_and_complaints(
        string kind, string body, string collection, string time, bool withMail) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(Event(app, kind, body));

        using var database = await OpenAfterStopAsync(app);
        var document = Assert.Single(database.GetCollection(collection).FindAll());
        Assert.Equal((Jane, kind), (document["email"].AsString, document["kind"].AsString));
        Assert.Equal(app.Clock.GetUtcNow().AddHours(-1).ToUnixTimeMilliseconds(), document[time].AsInt64);
        Assert.Equal(withMail, document.ContainsKey("mail"));
    }

    [Fact]
    public async Task Half_an_emoji_in_a_mail_is_kept_and_shown() {
        await using var app = await ReceiverApp.StartAsync();
        string message = FakeSns.SesBounce([Jane]).Replace("Your offers", @"20 % \ud83d", StringComparison.Ordinal)
            .Replace("november", @"nov\ud83d", StringComparison.Ordinal);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(message))).Status);

        Assert.Equal("20 % \ufffd", Assert.Single(await app.HistoryAsync(Jane)).GetProperty("subject").GetString());
    }

    [Fact]
    public async Task The_mail_of_a_bounce_can_be_read_as_JSON() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(Jane));

        using var database = await OpenAfterStopAsync(app);
        var bounce = Assert.Single(database.GetCollection("email_bounces").FindAll());
        var mail = JsonElement.Parse(bounce["mail"].AsString);
        Assert.Equal("Your offers", mail.GetProperty("commonHeaders").GetProperty("subject").GetString());
        Assert.Equal(("Permanent", "General"), (bounce["type"].AsString, bounce["subtype"].AsString));
    }

    [Fact]
    public async Task Suppressions_lie_under_their_address_with_reason_and_date() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("Jane@Example.com"));

        using var database = await OpenAfterStopAsync(app);
        var suppression = database.GetCollection("suppressions").FindById(Jane);
        Assert.Equal("bounce", suppression["reason"].AsString);
        Assert.Equal(app.Clock.GetUtcNow().AddHours(-1).ToUnixTimeMilliseconds(), suppression["since"].AsInt64);
    }
}
