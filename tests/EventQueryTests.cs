using Microsoft.Extensions.DependencyInjection;

/// <summary>The events of the store by time: what the routes for lists and statistics stand on.</summary>
public sealed class EventQueryTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;
    static IFeedbackStore StoreOf(ReceiverApp app) => app.Services.GetRequiredService<IFeedbackStore>();
    static async Task<List<(Guid Key, Feedback Feedback)>> ReadAsync(ReceiverApp app, EventQuery query) {
        await app.CaughtUpAsync();
        return await StoreOf(app).EventsAsync(query, Cancellation).ToListAsync(Cancellation);
    }
    static async Task<string[]> AddressesAsync(ReceiverApp app, EventQuery query) =>
        [.. (await ReadAsync(app, query)).Select(each => each.Feedback.Address)];

    [Fact]
    public async Task Bounces_complaints_and_the_others_come_in_one_order_of_time() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(["b@example.com"], at: "2026-11-24T07:02:00Z")));
        await app.PostAsync(app.Sns.Bounce("d@example.com", at: "2026-11-24T07:04:00Z"));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery("c@example.com", at: "2026-11-24T07:03:00Z")));
        await app.PostAsync(app.Sns.Bounce("a@example.com", at: "2026-11-24T07:01:00Z"));

        Assert.Equal(["d@example.com", "c@example.com", "b@example.com", "a@example.com"], await AddressesAsync(app, new()));
    }

    [Fact]
    public async Task Page_after_page_gives_every_event_once_though_all_are_of_one_millisecond() {
        await using var app = await ReceiverApp.StartAsync();
        for (int i = 0; i < 12; i++)
            await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce([.. Enumerable.Range(i * 100, 100).Select(n => $"{n}@example.com")], $"mail-{i}")));

        await app.CaughtUpAsync();
        var seen = new List<string>();
        for (Guid? before = null; ;) {
            var page = await StoreOf(app).EventsAsync(new(Before: before), Cancellation).Take(77).ToListAsync(Cancellation);
            if (page.Count == 0) break;
            seen.AddRange(page.Select(each => each.Feedback.Address));
            before = page[^1].Key;
        }

        Assert.Equal(1200, seen.Count);
        Assert.Equal(1200, seen.Distinct().Count());
    }

    [Fact]
    public async Task The_history_of_one_address_is_read_beyond_the_first_thousand() {
        await using var app = await ReceiverApp.StartAsync();
        for (int i = 0; i < 1100; i++) await app.PostAsync(app.Sns.Bounce("jane@example.com", $"mail-{i}"));

        Assert.Equal(1100, (await ReadAsync(app, new(Address: "jane@example.com"))).Count);
        Assert.Equal(1000, (await app.HistoryAsync("jane@example.com")).Length);
    }

    [Fact]
    public async Task Since_is_inclusive_and_until_is_not() {
        await using var app = await ReceiverApp.StartAsync();
        foreach (string minute in (string[])["01", "02", "03", "04"])
            await app.PostAsync(app.Sns.Bounce($"{minute}@example.com", at: $"2026-11-24T07:{minute}:00.500Z"));
        var (two, four) = (At("2026-11-24T07:02:00.500Z"), At("2026-11-24T07:04:00.500Z"));

        Assert.Equal(["03@example.com", "02@example.com"], await AddressesAsync(app, new(Since: two, Until: four)));
        Assert.Equal(["03@example.com"], await AddressesAsync(app, new(Since: two.AddTicks(1), Until: four)));
        Assert.Equal(["04@example.com", "03@example.com", "02@example.com"], await AddressesAsync(app, new(Since: two, Until: four.AddTicks(1))));
        Assert.Equal(["01@example.com"], await AddressesAsync(app, new(Until: two)));
        Assert.Empty(await AddressesAsync(app, new(Since: four.AddTicks(1))));
    }

    [Theory]
    [InlineData("kind")]
    [InlineData("address")]
    [InlineData("type")]
    [InlineData("subtype")]
    [InlineData("domain")]
    [InlineData("subject")]
    [InlineData("source")]
    [InlineData("configurationSet")]
    [InlineData("tag")]
    public async Task Each_filter_lets_only_its_own_pass(string filter) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await app.PostAsync(app.Sns.Signed("""
            {"eventType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"joe@notexample.com"}],"complaintFeedbackType":"abuse",
            "complaintSubType":"OnAccountSuppressionList"},"mail":{"messageId":"other","source":"other@shop.example.com",
            "commonHeaders":{"subject":"Other"},"tags":{"ses:configuration-set":["other"],"campaign":["december","november sale"]} } }
            """));
        EventQuery query = filter switch {
            "kind" => new(Kind: "Bounce"),
            "address" => new(Address: "jane@example.com"),
            "type" => new(Type: "Permanent"),
            "subtype" => new(SubType: "General"),
            "domain" => new(Domain: "example.com"),
            "subject" => new(Subject: "Your offers"),
            "source" => new(Source: "news@shop.example.com"),
            "configurationSet" => new(ConfigurationSet: "shop"),
            _ => new(Tag: ("campaign", "november")),
        };

        Assert.Equal(["jane@example.com"], await AddressesAsync(app, query));
        Assert.Equal(2, (await AddressesAsync(app, new())).Length);
    }

    [Fact]
    public async Task An_event_is_read_as_it_was_stored() {
        await using var app = await ReceiverApp.StartAsync();
        string posted = app.Sns.Signed(FakeSns.SesBounce(["Jane@Example.com", "joe@example.com"]));
        await app.PostAsync(posted);
        Assert.Null(Envelope.Read(new(System.Text.Encoding.UTF8.GetBytes(posted)), out var envelope));
        var said = SesEvent.Read(envelope!).Feedback[0];

        var (key, read) = Assert.Single(await ReadAsync(app, new(Address: "jane@example.com")));

        Assert.Equal(said, read);
        Assert.Equal(said.SortKey, key);
    }

    [Fact]
    public async Task An_event_without_a_time_or_from_before_1970_is_found_last() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("old@example.com", at: "1969-12-31T23:59:59Z"));
        await app.PostAsync(app.Sns.Bounce("new@example.com"));

        Assert.Equal(["new@example.com", "old@example.com"], await AddressesAsync(app, new()));
    }

    [Fact]
    public async Task Events_that_cannot_be_read_are_503_and_not_an_empty_list() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await app.StopAsync();

        await Assert.ThrowsAsync<Unavailable>(async () => await AddressesAsync(app, new()));
    }

    static DateTimeOffset At(string time) => DateTimeOffset.Parse(time, System.Globalization.CultureInfo.InvariantCulture);
}
