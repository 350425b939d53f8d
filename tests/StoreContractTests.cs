using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;

/// <summary>What every store must do, asked over HTTP and of <see cref="IFeedbackStore"/>. Each store runs the same facts.</summary>
public abstract class StoreContractTests {
    const string Jane = "jane@example.com";
    static readonly DateTimeOffset Seven = new(2026, 11, 24, 7, 0, 0, TimeSpan.Zero);

    /// <summary>The settings of a new, empty store.</summary>
    private protected abstract Task<string[]> NewStoreAsync(string folder);

    private protected async Task<ReceiverApp> StartAsync(params string[] settings) {
        string folder = Lines.FolderOf();
        return await ReceiverApp.StartAsync([.. await NewStoreAsync(folder), .. settings], folder);
    }

    static IFeedbackStore Store(ReceiverApp app) => app.Services.GetRequiredService<IFeedbackStore>();

    static async Task<List<Feedback>> EventsAsync(ReceiverApp app, EventQuery query) {
        await app.CaughtUpAsync();
        return [.. (await Store(app).EventsAsync(query, TestContext.Current.CancellationToken).ToListAsync())
            .Select(each => each.Feedback)];
    }

    static async Task<string[]> CountsAsync(ReceiverApp app, bool hourly, DateTimeOffset since) {
        await app.CaughtUpAsync();
        return [.. (await Store(app).CountsAsync(hourly, since))
            .Select(count => $"{count.At:MM-dd HH} {count.Kind} {count.Type} {count.SubType} "
                + $"{(count.ToSimulator ? "simulator " : "")}{count.Number}")];
    }

    static async Task PostAsync(ReceiverApp app, params string[] bodies) {
        foreach (string body in bodies) Assert.Equal(200, (await app.PostAsync(body)).Status);
    }

    [Fact]
    public async Task After_the_200_the_lookup_knows_and_the_history_shows_what_SES_said() {
        await using var app = await StartAsync();
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
        await PostAsync(app, app.Sns.Bounce("Jane@Example.com"));

        var (status, json) = await app.GetAsync("/suppressed/" + Jane);
        Assert.Equal((200, "bounce", Seven),
            (status, json.GetProperty("reason").GetString(), json.GetProperty("since").GetDateTimeOffset()));
        var shown = Assert.Single(await app.HistoryAsync(Jane));
        Assert.Equal(Seven, shown.GetProperty("at").GetDateTimeOffset());
        string[] names = ["kind", "type", "subtype", "status", "recipient", "subject", "source", "configurationSet",
            "mailId", "detail", "snsMessageId"];
        Assert.Equal("Bounce Permanent General 5.1.1 Jane@Example.com Your offers news@shop.example.com shop 0100019a00000000-mail "
            + "smtp; 550 5.1.1 user unknown 00000000-0000-4000-8000-000000000001",
            string.Join(' ', names.Select(name => shown.GetProperty(name).GetString())));
        Assert.Equal("november", shown.GetProperty("tags").GetProperty("campaign")[0].GetString());
    }

    [Fact]
    public async Task An_event_is_read_back_as_it_was_with_its_sort_key_and_when_its_mail_was_sent() {
        await using var app = await StartAsync();
        await PostAsync(app, app.Sns.Signed(FakeSns.SesComplaint([Jane, "joe@example.com"])));

        await app.CaughtUpAsync();
        var (key, feedback) = await Store(app).EventsAsync(new(Address: Jane), TestContext.Current.CancellationToken)
            .FirstAsync(TestContext.Current.CancellationToken);

        Assert.Equal(feedback.SortKey, key);
        Assert.Equal($"0100019a00000000-mail/complaint/abuse/{Jane}", feedback.Id);
        Assert.True(feedback.Possible);
        Assert.Null(feedback.SubType);
        Assert.Equal("2026-11-24T06:59:00.000Z", JsonElement.Parse(feedback.Mail!).GetProperty("timestamp").GetString());
        Assert.Equal(["november"], feedback.TagValues("campaign"));
    }

    [Fact]
    public async Task A_retry_and_the_other_format_count_once_and_the_topic_is_seen_to_be_doubled() {
        await using var app = await StartAsync();
        string bounce = app.Sns.Bounce(Jane);
        await PostAsync(app, bounce, bounce);
        Assert.Single(await app.HistoryAsync(Jane));
        Assert.Null(Assert.Single((await Store(app).StateAsync()).Topics).DoubledAt);

        await PostAsync(app, app.Sns.Bounce(Jane, at: "2026-11-24T07:05:00.000Z")); // a second answer to the same mail, in the same format
        Assert.Single(await app.HistoryAsync(Jane));
        Assert.Null(Assert.Single((await Store(app).StateAsync()).Topics).DoubledAt);

        app.Clock.Advance(TimeSpan.FromSeconds(2));
        await PostAsync(app, app.Sns.Signed(FakeSns.SesBounce([Jane], format: "notificationType")));

        Assert.Single(await app.HistoryAsync(Jane));
        Assert.Equal(["11-24 00 Bounce Permanent General 1"], await CountsAsync(app, hourly: false, Seven));
        Assert.NotNull(Assert.Single((await Store(app).StateAsync()).Topics).DoubledAt);
    }

    [Fact]
    public async Task A_thousand_parallel_posts_of_one_envelope_count_once() {
        await using var app = await StartAsync();
        string bounce = app.Sns.Bounce(Jane);

        var answers = await Task.WhenAll(Enumerable.Range(0, 1000).Select(_ => app.PostAsync(bounce)));

        Assert.All(answers, answer => Assert.Equal((200, "kept"), answer));
        Assert.Single(await app.HistoryAsync(Jane));
        Assert.Equal(["11-24 00 Bounce Permanent General 1"], await CountsAsync(app, hourly: false, Seven));
    }

    [Fact]
    public async Task Many_posts_at_once_of_many_addresses_are_all_there_and_all_counted() {
        await using var app = await StartAsync();

        await Task.WhenAll(Enumerable.Range(0, 600).Select(async number => {
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce($"a{number % 300}@example.com", $"mail-{number}"))).Status);
            Assert.Equal(200, await app.StatusAsync($"/suppressed/a{number % 300}@example.com"));
        }));

        Assert.Equal(600, (await EventsAsync(app, new())).Count);
        Assert.Equal(["11-24 00 Bounce Permanent General 600"], await CountsAsync(app, hourly: false, Seven));
        Assert.Equal(300, (await Store(app).StateAsync()).Suppressed);
    }

    [Fact]
    public async Task The_stronger_reason_replaces_the_weaker_and_the_first_date_stays() {
        await using var app = await StartAsync();
        await PostAsync(app, app.Sns.Bounce(Jane, "mail-1", at: "2026-11-24T06:00:00Z"),
            app.Sns.Signed(FakeSns.SesComplaint([Jane], "mail-2")), app.Sns.Bounce(Jane, "mail-3"));

        var (_, json) = await app.GetAsync("/suppressed/" + Jane);

        Assert.Equal("complaint", json.GetProperty("reason").GetString());
        Assert.Equal(Seven.AddHours(-1), json.GetProperty("since").GetDateTimeOffset());
        Assert.Equal($"mail-2/complaint/abuse/{Jane}", json.GetProperty("event").GetString());
    }

    [Fact]
    public async Task Soft_bounces_in_a_row_suppress_at_the_limit_and_a_retry_is_none_of_them() {
        await using var app = await StartAsync("Suppression:SoftBounceLimit=3");
        string Soft(int mail) => app.Sns.Bounce(Jane, $"mail-{mail}", "Transient", "MailboxFull", $"2026-11-24T07:0{mail}:00Z");
        string second = Soft(2);
        await PostAsync(app, Soft(1), second, second, second);
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
        await PostAsync(app, app.Sns.Signed(FakeSns.SesDelivery(Jane, "mail-3", "2026-11-24T07:03:00Z")), Soft(4), Soft(5));
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
        await PostAsync(app, Soft(6));
        Assert.Equal("soft-bounces", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());
    }

    [Fact]
    public async Task What_is_done_by_hand_holds_at_once_and_a_lift_outlasts_old_evidence() {
        await using var app = await StartAsync();
        async Task<int> SendAsync(HttpMethod method, string? body = null) {
            using var request = new HttpRequestMessage(method, "/suppressed/" + Jane) {
                Content = body is null ? null : new StringContent(body),
            };
            using var response = await app.Private.SendAsync(request, TestContext.Current.CancellationToken);
            return (int)response.StatusCode;
        }
        Assert.Equal(201, await SendAsync(HttpMethod.Put, """{"note":"asked\u0000by phone"}"""));
        Assert.Equal(200, await SendAsync(HttpMethod.Put));
        string? note = (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("note").GetString();
        Assert.StartsWith("asked", note, StringComparison.Ordinal);
        Assert.Equal(204, await SendAsync(HttpMethod.Delete));
        Assert.Equal(404, await SendAsync(HttpMethod.Delete));
        await PostAsync(app, app.Sns.Bounce(Jane));
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
        await PostAsync(app, app.Sns.Bounce(Jane, "mail-2", at: "2026-11-24T08:00:01Z"));
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
        Assert.Equal(2, (await app.HistoryAsync(Jane)).Length);
    }

    /// <summary>Two of each kind, an hour apart, of two people.</summary>
    static async Task FillAsync(ReceiverApp app) {
        for (int hour = 1; hour <= 6; hour++) {
            string at = $"2026-11-24T0{hour}:00:00.{hour}00Z", address = hour % 2 == 0 ? Jane : "joe@example.org", mail = $"mail-{hour}";
            await PostAsync(app,
                app.Sns.Bounce(address, mail, hour > 3 ? "Transient" : "Permanent", hour > 4 ? "MailboxFull" : "General", at),
                app.Sns.Signed(FakeSns.SesComplaint([address], mail, hour > 3 ? "not-spam" : null, at)
                    .Replace("november", "campaign-" + hour, StringComparison.Ordinal)
                    .Replace("Your offers", "Offer " + hour % 3, StringComparison.Ordinal)),
                app.Sns.Signed(FakeSns.SesDelivery(address, mail, at)
                    .Replace("\"shop\"", hour == 1 ? "\"other\"" : "\"shop\"", StringComparison.Ordinal)),
                app.Sns.Signed(FakeSns.SesDelivery(address, mail, at)
                    .Replace("Delivery", "Send", StringComparison.Ordinal)
                    .Replace("delivery", "send", StringComparison.Ordinal)
                    .Replace("news@", "mail@", StringComparison.Ordinal)));
        }
    }

    static readonly Dictionary<string, (EventQuery Query, int Count)> Queries = new() {
        ["everything"] = (new(), 24), ["bounces"] = (new("Bounce"), 6),
        ["complaints"] = (new("Complaint"), 6), ["deliveries"] = (new("Delivery"), 6),
        ["sends"] = (new("Send"), 6), ["a kind that never came"] = (new("Reject"), 0), ["an address"] = (new(Address: Jane), 12),
        ["an address and a kind"] = (new("Bounce", Jane), 3), ["nobody"] = (new(Address: "nobody@example.com"), 0),
        ["since, inclusive"] = (new(Since: Seven.AddHours(-2).AddMilliseconds(500)), 8),
        ["since, a moment later"] = (new(Since: Seven.AddHours(-2).AddMilliseconds(500.1)), 4),
        ["until, exclusive"] = (new(Until: Seven.AddHours(-2).AddMilliseconds(500)), 16),
        ["until, a moment later"] = (new(Until: Seven.AddHours(-2).AddMilliseconds(500.1)), 20),
        ["between"] = (new(Since: Seven.AddHours(-5), Until: Seven.AddHours(-3)), 8),
        ["an empty span"] = (new(Since: Seven, Until: Seven), 0),
        ["a type"] = (new(Type: "Permanent"), 3), ["a subtype"] = (new(SubType: "MailboxFull"), 2),
        ["a type that only a complaint has"] = (new(Type: "not-spam"), 3),
        ["a domain"] = (new(Domain: "example.org"), 12), ["half a domain"] = (new(Domain: "ample.org"), 0),
        ["a subject"] = (new(Subject: "Offer 1"), 2),
        ["a source"] = (new(Source: "mail@shop.example.com"), 6),
        ["a configuration set"] = (new(ConfigurationSet: "other"), 1),
        ["a tag"] = (new(Tag: ("campaign", "campaign-4")), 1),
        ["a tag's other name"] = (new(Tag: ("campaigns", "campaign-4")), 0),
        ["all of it"] = (new("Complaint", Jane, Seven.AddHours(-6), Seven,
            null, "not-spam", null, "example.com", "Offer 1", "news@shop.example.com", "shop", ("campaign", "campaign-4")), 1),
        ["a quote"] = (new(Subject: "'; drop table email_events; --"), 0),
    };

    [Fact]
    public async Task Events_are_found_by_every_filter_newest_first_and_page_by_page() {
        await using var app = await StartAsync();
        await FillAsync(app);
        var all = await EventsAsync(app, new());
        Assert.Equal(24, all.Count);
        foreach (var (name, (query, count)) in Queries) {
            var found = await EventsAsync(app, query);
            Assert.Equal((name, count), (name, found.Count));
            Assert.Equal(all.Where(query.Matches).Select(each => each.Id), found.Select(each => each.Id));
            Assert.Equal(found.Select(each => each.SortKey).OrderDescending(), found.Select(each => each.SortKey));
            if (count > 1) Assert.Equal(found.Skip(1).Select(each => each.Id),
                (await EventsAsync(app, query with { Before = found[0].SortKey })).Select(each => each.Id));
        }
    }

    [Fact]
    public async Task Pages_cost_no_event_and_double_none_however_many_there_are() {
        await using var app = await StartAsync();
        foreach (int[] together in Enumerable.Range(0, 2500).Chunk(500))
            await Task.WhenAll(together.Select(number => PostAsync(app, app.Sns.Signed(FakeSns.SesDelivery(
                number % 2 == 0 ? Jane : "joe@example.org", $"mail-{number}", Seven.AddMilliseconds(number / 50).ToString("O"))))));
        (EventQuery, int)[] cases = [(new(), 2500), (new(Address: Jane), 1250), (new(Domain: "example.org"), 1250)];
        foreach (var (query, count) in cases) {
            var ids = (await EventsAsync(app, query)).Select(each => each.Id).ToList();
            Assert.Equal((count, count), (ids.Count, ids.Distinct().Count()));
        }
    }

    [Fact]
    public async Task Roll_ups_count_each_event_in_its_hour_and_its_day() {
        await using var app = await StartAsync();
        await PostAsync(app, app.Sns.Signed(FakeSns.SesBounce([Jane, "joe@example.com", "bounce@simulator.amazonses.com"])),
            app.Sns.Bounce(Jane, "mail-2", at: "2026-11-23T23:59:59.999Z"), app.Sns.Bounce(Jane, "mail-3", at: "2026-11-24T00:59:59+01:00"),
            app.Sns.Signed(FakeSns.SesComplaint([Jane], at: "2026-11-24T06:59:59.999Z")), app.Sns.Signed(FakeSns.SesDelivery(Jane)));

        Assert.Equal(["11-23 00 Bounce Permanent General 2", "11-24 00 Bounce Permanent General 2",
            "11-24 00 Bounce Permanent General simulator 1", "11-24 00 Complaint abuse  1", "11-24 00 Delivery   1"],
            (await CountsAsync(app, hourly: false, Seven.AddDays(-1))).Order(StringComparer.Ordinal));
        Assert.Equal(["11-23 23 Bounce Permanent General 2", "11-24 06 Complaint abuse  1",
            "11-24 07 Bounce Permanent General 2",
            "11-24 07 Bounce Permanent General simulator 1", "11-24 07 Delivery   1"],
            (await CountsAsync(app, hourly: true, Seven.AddDays(-1))).Order(StringComparer.Ordinal));
        Assert.Equal(3, (await CountsAsync(app, hourly: true, Seven.AddMinutes(59))).Length);
        Assert.Empty(await CountsAsync(app, hourly: true, Seven.AddHours(1)));
        var times = (await Store(app).CountsAsync(hourly: true, Seven.AddDays(-1))).Select(count => count.At).ToList();
        Assert.Equal(times.Order(), times);
    }

    [Fact]
    public async Task The_state_tells_what_was_seen_of_each_topic_and_how_much_lies_unread() {
        await using var app = await StartAsync();
        Assert.Empty((await Store(app).StateAsync()).Topics);
        await PostAsync(app, app.Sns.Sign(app.Sns.Confirmation()),
            app.Sns.Signed("Successfully validated SNS topic for Amazon SES event publishing."));
        app.Clock.Advance(TimeSpan.FromMinutes(1));
        await PostAsync(app, app.Sns.Signed("The shop is back \u2603"), app.Sns.Signed("half \0 nothing"),
            app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation", "1")));
        await app.CaughtUpAsync();

        var state = await Store(app).StateAsync();

        var topic = Assert.Single(state.Topics);
        Assert.Equal((FakeSns.TopicArn, app.Clock.GetUtcNow().AddMinutes(-1), app.Clock.GetUtcNow().AddMinutes(-1),
            app.Clock.GetUtcNow(), app.Clock.GetUtcNow(), "1"),
            (topic.TopicArn, topic.ConfirmedAt!.Value, topic.ValidatedAt!.Value,
            topic.UnsubscribedAt!.Value, topic.LastAt!.Value, topic.SignatureVersion));
        Assert.Null(topic.DoubledAt);
        Assert.Equal((2, 0, 0, TimeSpan.Zero), (state.Unread, state.Suppressed, state.BehindBytes, state.Behind));
        Assert.True(state.JournalBytes > 0);
        Assert.Empty(state.Findings);
    }

    [Theory]
    [InlineData("a null", "Your offers", @"Your \u0000 offers", "Your ")]
    [InlineData("half an emoji", "Your offers", @"20 % \ud83d", "20 % \ufffd")]
    [InlineData("an emoji", "Your offers", @"20 % \ud83d\ude00", "20 % \ud83d\ude00")]
    [InlineData("an escaped backslash", "Your offers", @"C:\\u0000", @"C:\u0000")]
    [InlineData("a number that no computer holds", "\"source\":", "\"size\":1e999999,\"source\":", "")]
    [InlineData("a null in a tag", "november", @"nov\u0000ember", "")]
    [InlineData("an emoji at the 64th character of a type", "General",
        "123456789012345678901234567890123456789012345678901234567890123\\ud83d\\ude00", "")]
    [InlineData("a member twice", "\"source\":", "\"source\":\"first\",\"source\":", "")]
    public async Task Whatever_a_mail_says_its_bounce_is_kept_and_suppresses(string what, string from, string to, string subject) {
        await using var app = await StartAsync();
        await PostAsync(app, app.Sns.Signed(FakeSns.SesBounce([Jane]).Replace(from, to, StringComparison.Ordinal)));

        Assert.Equal((what, 200), (what, await app.StatusAsync("/suppressed/" + Jane)));
        string? found = Assert.Single(await app.HistoryAsync(Jane)).GetProperty("subject").GetString();
        Assert.StartsWith(subject, found, StringComparison.Ordinal);
        Assert.Single(await CountsAsync(app, hourly: false, Seven));
        Assert.Equal(0, (await Store(app).StateAsync()).Unread);
    }

    [Theory]
    [InlineData("Your offers")] // in `mail`, and each of 1,000 events would repeat it
    [InlineData("november")]
    [InlineData("Permanent")]
    [InlineData("0100019a00000000-mail")]
    [InlineData("Bounce")] // the kind of event, of which all in `mail` are recipients then
    public async Task What_names_thousands_to_repeat_a_giant_for_is_unread_and_costs_no_more_than_itself(string text) {
        await using var app = await StartAsync();
        string Giant(int recipients, int length) => app.Sns.Signed(FakeSns.SesBounce([.. Enumerable.Range(0, recipients)
            .Select(number => $"a{number}@example.com")]).Replace(text, new string('x', length), StringComparison.Ordinal));
        await PostAsync(app, app.Sns.Bounce(Jane));
        var (status, line) = await app.PostAsync(Giant(1000, 300_000));

        Assert.Equal((200, "kept, but it is no SES event that this receiver can read"), (status, line));
        Assert.Equal(404, await app.StatusAsync("/suppressed/a0@example.com"));
        Assert.Single(await EventsAsync(app, new()));
        Assert.Equal(1, (await Store(app).StateAsync()).Unread);
        Assert.Equal((200, "kept"), await app.PostAsync(Giant(50, 250_000))); // the most that SES and SNS allow
        Assert.Equal(51, (await EventsAsync(app, new())).Count);
    }

    [Fact]
    public async Task An_address_with_a_null_or_of_any_length_is_kept_and_found() {
        await using var app = await StartAsync();
        string[] addresses = ["ja\0ne@example.com", new string('x', 400) + "@example.com", "Jörg@Bücher.example", "no address"];
        await PostAsync(app, app.Sns.Signed(FakeSns.SesBounce(addresses)));

        var found = await Store(app).FindAsync(addresses.Select(Address.Key).ToList());

        Assert.Equal([true, true, true, true], found!.Select(known => known.Suppressed));
        foreach (string address in addresses) Assert.True((await Store(app).FindAsync(Address.Key(address)))!.Suppressed);
    }

    [Fact]
    public async Task Many_addresses_are_found_at_once_in_their_order() {
        await using var app = await StartAsync();
        await PostAsync(app, app.Sns.Signed(FakeSns.SesBounce([.. Enumerable.Range(0, 50).Select(number => $"a{number}@example.com")])));
        string[] asked = [.. Enumerable.Range(0, 12_000).Select(number => (number % 240 == 0 ? "a" : "b") + number / 240 + "@example.com")];

        var found = await Store(app).FindAsync(asked);

        Assert.Equal(asked.Select(address => address[0] == 'a'), found!.Select(known => known.Suppressed));
        Assert.Empty((await Store(app).FindAsync(Array.Empty<string>()))!);
    }

    [Fact]
    public async Task Everything_outlives_a_restart() {
        string folder = Lines.FolderOf();
        string[] settings = await NewStoreAsync(folder);
        await using var first = await ReceiverApp.StartAsync(settings, folder);
        await FillAsync(first);
        var (history, known) = ((await first.WholeHistoryAsync(Jane)).GetRawText(),
            (await first.GetAsync("/suppressed/" + Jane)).Json.GetRawText());
        string[] counts = await CountsAsync(first, hourly: true, DateTimeOffset.UnixEpoch);
        await first.StopAsync();

        await using var second = await ReceiverApp.StartAsync(settings, folder, first.Sns);

        Assert.Equal(history, (await second.WholeHistoryAsync(Jane)).GetRawText());
        Assert.Equal(known, (await second.GetAsync("/suppressed/" + Jane)).Json.GetRawText());
        Assert.Equal(counts, await CountsAsync(second, hourly: true, DateTimeOffset.UnixEpoch));
        Assert.Equal("200 ok", $"{(int)(await second.Webhook.GetAsync("/health", TestContext.Current.CancellationToken)).StatusCode} ok");
    }
}

public sealed class LiteDbContractTests : StoreContractTests {
    private protected override Task<string[]> NewStoreAsync(string folder) => Task.FromResult<string[]>([]);
}
