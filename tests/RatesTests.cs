using Microsoft.Extensions.DependencyInjection;

/// <summary>Roll-ups, and the rates as SES counts them.</summary>
public sealed class RatesTests {
    static readonly DateTimeOffset Noon = new(2026, 11, 24, 12, 0, 0, TimeSpan.Zero);
    static Count Counted(string kind, string type, string subType, long number, bool toSimulator = false) =>
        new(Noon, kind, type, subType, toSimulator, number);

    [Fact]
    public void A_rate_is_hard_bounces_by_sends_and_complaints_by_deliveries() {
        var rates = Rates.Of([
            Counted("Send", "", "", 1000), Counted("Delivery", "", "", 800), Counted("Bounce", "Permanent", "General", 30),
            Counted("Bounce", "Permanent", "NoEmail", 20), Counted("Complaint", "abuse", "", 4), Counted("Complaint", "", "", 4),
        ]);

        Assert.Equal((0.05, 0.01), (rates.BounceRate, rates.ComplaintRate));
    }

    [Theory]
    [InlineData("Bounce", "Transient", "MailboxFull", false)]
    [InlineData("Bounce", "Undetermined", "", false)]
    [InlineData("Bounce", "Permanent", "OnAccountSuppressionList", false)]
    [InlineData("Bounce", "Permanent", "OnTenantSuppressionList", false)]
    [InlineData("Bounce", "Permanent", "General", true)]
    [InlineData("Complaint", "not-spam", "", false)]
    [InlineData("Complaint", "abuse", "OnAccountSuppressionList", false)]
    [InlineData("Complaint", "abuse", "", true)]
    [InlineData("Open", "", "", false)]
    public void What_SES_does_not_hold_against_the_sender_is_in_no_rate(string kind, string type, string subType, bool toSimulator) {
        var rates = Rates.Of([Counted("Send", "", "", 1), Counted("Delivery", "", "", 1), Counted(kind, type, subType, 1, toSimulator)]);

        Assert.Equal((0.0, 0.0), (rates.BounceRate, rates.ComplaintRate));
    }

    [Fact]
    public void A_bounce_that_SES_s_own_list_made_without_saying_so_counts() =>
        Assert.Equal(1, Rates.Of([Counted("Bounce", "Permanent", "Suppressed", 1)]).Bounces);

    [Fact]
    public void What_came_before_sends_or_deliveries_were_collected_is_in_no_rate() {
        static Count At(double hours, Count count) => count with { At = Noon.AddHours(hours) };
        var rates = Rates.Of([
            At(-2, Counted("Bounce", "Permanent", "General", 500)), At(-2, Counted("Complaint", "abuse", "", 50)), At(-1, Counted("Send", "", "", 200)),
            At(-1, Counted("Bounce", "Permanent", "General", 3)), At(-1, Counted("Complaint", "abuse", "", 50)), At(0, Counted("Delivery", "", "", 100)),
            At(0, Counted("Bounce", "Permanent", "General", 1)), At(1, Counted("Complaint", "abuse", "", 1)),
        ]);

        Assert.Equal((0.02, 0.01), (rates.BounceRate, rates.ComplaintRate));
    }

    [Theory]
    [InlineData(0, 900, 100, 0.1)] // no Send is collected
    [InlineData(5, 900, 100, 0.1)] // nor of every configuration set
    [InlineData(2000, 900, 100, 0.05)] // deliveries lag behind, or are not collected of every one
    [InlineData(0, 1, 1, 0.5)]
    public void Where_sends_are_not_collected_mails_are_what_was_delivered_or_bounced_for_good(long sends, long deliveries, long bounces, double rate) =>
        Assert.Equal(rate, Rates.Of([Counted("Send", "", "", sends), Counted("Delivery", "", "", deliveries), Counted("Bounce", "Permanent", "General", bounces),
            Counted("Bounce", "Transient", "General", 50)]).BounceRate);

    [Fact]
    public void Without_sends_and_deliveries_the_rates_are_unknown_and_not_zero() {
        var rates = Rates.Of([Counted("Bounce", "Permanent", "General", 5), Counted("Complaint", "abuse", "", 5)]);

        Assert.Equal((5, 5), (rates.Bounces, rates.Complaints));
        Assert.Null(rates.BounceRate);
        Assert.Null(rates.ComplaintRate);
    }

    [Fact]
    public async Task Roll_ups_are_of_UTC_hours_and_days_from_the_one_asked_for_on() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("a@example.com", at: "2026-11-23T23:59:59.999Z"));
        await app.PostAsync(app.Sns.Bounce("b@example.com", at: "2026-11-24T01:30:00+02:00"));
        await app.PostAsync(app.Sns.Bounce("c@example.com", at: "2026-11-24T07:00:00Z"));
        await app.PostAsync(app.Sns.Bounce("d@example.com", at: "2026-11-24T07:59:59Z"));
        await app.PostAsync(app.Sns.Bounce("bounce@simulator.amazonses.com", at: "2026-11-24T07:00:00Z"));
        await app.CaughtUpAsync();
        var store = app.Services.GetRequiredService<IFeedbackStore>();

        Assert.Equal([new(Noon.AddHours(-36), "Bounce", "Permanent", "General", false, 2), new(Noon.AddHours(-12), "Bounce", "Permanent", "General", false, 2),
            new Count(Noon.AddHours(-12), "Bounce", "Permanent", "General", true, 1)], await store.CountsAsync(hourly: false, Noon.AddDays(-1)));
        Assert.Equal([new(Noon.AddHours(-5), "Bounce", "Permanent", "General", false, 2), new Count(Noon.AddHours(-5), "Bounce", "Permanent", "General", true, 1)],
            await store.CountsAsync(hourly: true, Noon.AddHours(-5).AddMinutes(59)));
        Assert.Equal(3, (await store.CountsAsync(hourly: true, Noon.AddHours(-13))).Count);
    }

    [Fact]
    public async Task Whatever_SES_calls_a_type_its_roll_up_can_be_read_back() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("a@example.com", type: "x|y|simulator", subType: new string('z', 5000)));
        await app.PostAsync(app.Sns.Signed("""{"eventType":"a|b","mail":{"messageId":"m","destination":["a@example.com"]} }"""));
        await app.CaughtUpAsync();

        var counts = await app.Services.GetRequiredService<IFeedbackStore>().CountsAsync(hourly: false, Noon.AddDays(-1));

        Assert.Equal([("Bounce", "x/y/simulator", new string('z', 64)), ("a/b", "", "")], counts.Select(count => (count.Kind, count.Type, count.SubType)));
    }
}
