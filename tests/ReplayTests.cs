using System.Text.Json;
using static Story;
using Step = System.Func<Known, int, Known>;

/// <summary>Entries are applied again: all from some point on after a crash, and one alone when SNS sends a message
/// twice. Neither may change anything.</summary>
public sealed class ReplayTests {
    // A mail bounces once, so it is named after the minute.
    static readonly (string Name, bool ByHand, Func<string, int, Step> Step)[] Entries =
    [
        ("Bounce", false, (_, minute) => Bounce(minute)),
        ("Complaint", false, (_, minute) => Complaint(minute)),
        ("Unsubscribe", false, (_, minute) => Unsubscribe(minute)),
        ("Subscribe", false, (_, minute) => Subscribe(minute)),
        ("NoContact", false, (_, minute) => Event("Bounce", "Permanent", "UnsubscribedRecipient", minute)),
        ("Soft", false, (_, minute) => Soft($"soft at {minute}", minute)),
        ("AutoReply", false, (_, minute) => AutoReply($"mail {minute}", minute)),
        ("Delivery", false, (mail, minute) => Delivery(mail, minute)),
        ("ByHand", true, (mail, minute) => ByHand(minute, "note on " + mail)),
        ("ImportedBounce", true, (_, minute) => Imported("bounce", minute, Math.Max(0, minute - 2))),
        ("ImportedComplaint", true, (mail, minute) => Imported("complaint", minute, note: mail)),
        ("ImportedUnsubscribe", true, (_, minute) => Imported("unsubscribe", minute, Math.Max(0, minute - 2))),
        ("ImportedManual", true, (mail, minute) => Imported("manual", minute, Math.Max(0, minute - 1), mail)),
        ("Lift", true, (_, minute) => Lift(minute)),
    ];

    static string Json(Known known) => JsonSerializer.Serialize(known);

    /// <summary>Up to twelve entries, one a minute. What is done by hand is dated then, feedback up to three minutes
    /// before.</summary>
    static (string Name, bool ByHand, Step Step)[] Draw(int seed) {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, random.Next(2, 13)).Select(minute =>
        {
            var (name, byHand, step) = Entries[random.Next(Entries.Length)];
            string mail = $"mail {random.Next(6)}";
            int at = byHand ? minute : Math.Max(0, minute - random.Next(4));
            return ($"{name} ({mail}) at {at}", byHand, step(mail, at));
        })];
    }

    static void Changes_nothing(int limit, Func<(string, bool, Step Step)[], IEnumerable<Step[]>> again) {
        for (int seed = 0; seed < 2_000; seed++) {
            var drawn = Draw(seed);
            var once = Apply(Known.Nothing, limit, drawn.Select(entry => entry.Step));
            Assert.All(again(drawn), steps => Assert.True(Json(once) == Json(Apply(once, limit, steps)),
                $"seed {seed}, {steps.Length} again: " + string.Join(", ", drawn.Select(entry => entry.Name))));
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void All_entries_from_any_one_on_change_nothing_when_applied_again(int limit) => Changes_nothing(limit,
        drawn => Enumerable.Range(0, drawn.Length).Select(from => drawn[from..].Select(entry => entry.Step).ToArray()));

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Any_feedback_changes_nothing_when_SNS_sends_it_again(int limit) => Changes_nothing(limit,
        drawn => drawn.Where(entry => !entry.Item2).Select(entry => new[] { entry.Step }));

    static void Replays(int limit, params Step[] entries) => Assert.Equal(
        Json(AfterWith(limit, entries)), Json(Apply(AfterWith(limit, entries), limit, entries)));

    [Fact]
    public void An_old_unsubscription_does_not_bring_its_date_back() =>
        Replays(0, Unsubscribe(1), Subscribe(2), ByHand(3));

    [Fact]
    public void An_old_unsubscription_does_not_take_soft_bounces_off() =>
        Replays(1, Unsubscribe(1), Subscribe(2), Soft("m1", 3));

    [Fact]
    public void A_later_Delivery_does_not_take_back_the_soft_bounces_after_a_lift() =>
        Replays(1, Lift(1), Soft("m1", 2), Delivery("m2", 3));
}
