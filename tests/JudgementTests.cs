using static Story;
using Step = System.Func<Known, int, Known>;

/// <summary>What feedback means for an address.</summary>
public sealed class JudgementTests {
    [Theory]
    [InlineData("Complaint", "abuse", null, "complaint")]
    [InlineData("Complaint", "fraud", null, "complaint")]
    [InlineData("Complaint", "virus", null, "complaint")]
    [InlineData("Complaint", "other", null, "complaint")]
    [InlineData("Complaint", null, null, "complaint")]
    [InlineData("Complaint", null, "OnAccountSuppressionList", "complaint")]
    [InlineData("Complaint", "invented", null, "complaint")]
    [InlineData("Complaint", "not-spam", null, null)]
    [InlineData("Bounce", "Permanent", "General", "bounce")]
    [InlineData("Bounce", "Permanent", "NoEmail", "bounce")]
    [InlineData("Bounce", "Permanent", "Suppressed", "bounce")]
    [InlineData("Bounce", "Permanent", "OnAccountSuppressionList", "bounce")]
    [InlineData("Bounce", "Permanent", "OnTenantSuppressionList", "bounce")]
    [InlineData("Bounce", "Permanent", "EmailValidationSuppressed", "bounce")]
    [InlineData("Bounce", "Permanent", "Invented", "bounce")]
    [InlineData("Bounce", "Permanent", null, "bounce")]
    [InlineData("Bounce", "Permanent", "UnsubscribedRecipient", "unsubscribe")]
    [InlineData("Bounce", "Transient", "MailboxFull", null)]
    [InlineData("Bounce", "Transient", "General", null)]
    [InlineData("Bounce", "Undetermined", "Undetermined", null)]
    [InlineData("Bounce", null, null, null)]
    [InlineData("Subscription", "unsubscribeAll", null, "unsubscribe")]
    [InlineData("Subscription", "subscribed", null, null)]
    [InlineData("Subscription", null, null, null)]
    [InlineData("Delivery", null, null, null)]
    [InlineData("DeliveryDelay", "MailboxFull", null, null)]
    [InlineData("Send", null, null, null)]
    [InlineData("Reject", null, null, null)]
    [InlineData("Open", null, null, null)]
    [InlineData("Click", null, null, null)]
    [InlineData("Rendering Failure", null, null, null)]
    [InlineData("Invented", "Permanent", "General", null)]
    public void What_each_kind_of_feedback_suppresses(string kind, string? type, string? subType, string? reason) =>
        Assert.Equal(reason, After(Event(kind, type, subType)).Reason);

    [Theory]
    [InlineData("Suppressed")]
    [InlineData("EmailValidationSuppressed")]
    [InlineData("OnAccountSuppressionList")]
    [InlineData("OnTenantSuppressionList")]
    [InlineData("OnInventedSuppressionList")]
    public void Because_says_when_SES_itself_refuses_and_how_to_mend_it(string subType) {
        string because = After(Event("Bounce", "Permanent", subType)).Because!;

        Assert.Contains(subType, because, StringComparison.Ordinal);
        Assert.Contains("aws sesv2 delete-suppressed-destination --email-address", because, StringComparison.Ordinal);
        Assert.Contains("Jane@example.com", because, StringComparison.Ordinal);
        Assert.DoesNotContain("Jane Doe", because, StringComparison.Ordinal);
    }

    [Fact]
    public void Because_can_be_read_out() {
        string because = After(Bounce()).Because!;

        Assert.Contains("\"Your offers\"", because, StringComparison.Ordinal);
        Assert.Contains("2026-11-24", because, StringComparison.Ordinal);
        Assert.Contains("550 said the other side", because, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_complaint_that_may_be_another_s_suppresses_and_says_possibly(bool possible) {
        var known = After(Event("Complaint", "abuse", possible: possible));

        Assert.Equal("complaint", known.Reason);
        Assert.Equal(possible, known.Because!.Contains("possibly", StringComparison.Ordinal));
    }

    [Fact]
    public void The_preferences_of_one_of_several_recipients_suppress_nobody() =>
        Assert.Null(After(Event("Subscription", "unsubscribeAll", possible: true)).Reason);

    static readonly Dictionary<string, Step> For = new() {
        ["complaint"] = Complaint(5),
        ["bounce"] = Bounce(5),
        ["unsubscribe"] = Unsubscribe(5),
        ["soft-bounces"] = Soft("mail", 5),
        ["manual"] = ByHand(5),
        ["none"] = (known, _) => known,
    };

    [Theory]
    [InlineData("complaint", "bounce")]
    [InlineData("complaint", "unsubscribe")]
    [InlineData("complaint", "soft-bounces")]
    [InlineData("complaint", "manual")]
    [InlineData("bounce", "unsubscribe")]
    [InlineData("bounce", "soft-bounces")]
    [InlineData("bounce", "manual")]
    [InlineData("unsubscribe", "soft-bounces")]
    [InlineData("unsubscribe", "manual")]
    [InlineData("soft-bounces", "manual")]
    public void The_stronger_reason_stands_whichever_came_first(string stronger, string weaker) {
        Assert.Equal(stronger, AfterWith(1, For[stronger], For[weaker]).Reason);
        Assert.Equal(stronger, AfterWith(1, For[weaker], For[stronger]).Reason);
    }

    [Fact]
    public void The_first_date_stays_and_the_evidence_is_that_of_the_stronger_reason() {
        var known = After(ByHand(1, "asked by phone"), Bounce(3), Complaint(5), Complaint(7), Bounce(9));

        Assert.Equal((At(1), "asked by phone"), (known.Since, known.Note));
        Assert.Equal(Said("Complaint", "abuse", null, 5, "mail").Id, known.Event);
    }

    [Fact]
    public void A_stronger_reason_with_an_earlier_date_brings_its_date() =>
        Assert.Equal(At(3), After(Bounce(5), Complaint(3)).Since);

    [Theory]
    [InlineData("complaint", 6, null)]
    [InlineData("complaint", 5, "complaint")]
    [InlineData("complaint", 4, "complaint")]
    [InlineData("bounce", 6, null)]
    [InlineData("bounce", 5, "bounce")]
    [InlineData("unsubscribe", 6, null)]
    [InlineData("unsubscribe", 5, "unsubscribe")]
    [InlineData("soft-bounces", 6, null)]
    [InlineData("soft-bounces", 5, "soft-bounces")]
    [InlineData("manual", 6, null)]
    [InlineData("manual", 5, "manual")]
    public void Evidence_of_minute_5_counts_unless_it_is_dated_before_the_lift(
        string evidence, int lift, string? reason) =>
        Assert.Equal(reason, AfterWith(1, Bounce(), Lift(lift), For[evidence]).Reason);

    [Fact]
    public void A_lift_takes_every_reason_off_and_an_earlier_one_changes_nothing() {
        var known = AfterWith(1, ByHand(1, "note"), Complaint(2), Soft("mail", 3), Lift(8), Lift(4));

        Assert.Equal(new Known(LiftedAt: At(8)), known);
        Assert.Null(AfterWith(1, ByHand(1), Complaint(2), Lift(8), Lift(4), Bounce(6)).Reason);
    }

    [Theory]
    [InlineData("none", null)]
    [InlineData("manual", "manual")]
    [InlineData("soft-bounces", "soft-bounces")]
    [InlineData("bounce", "bounce")]
    [InlineData("complaint", "complaint")]
    public void To_subscribe_again_lifts_the_unsubscription_and_nothing_else(string other, string? reason) {
        Assert.Equal(reason, AfterWith(1, For[other], Unsubscribe(6), Subscribe(7)).Reason);
        Assert.Equal(reason, AfterWith(1, Unsubscribe(4), For[other], Subscribe(7)).Reason);
    }

    [Fact]
    public void To_subscribe_again_is_no_lift_for_older_bounces() =>
        Assert.Equal("bounce", After(Unsubscribe(1), Subscribe(7), Bounce(5)).Reason);

    [Fact]
    public void Preferences_are_judged_by_their_date_and_not_by_when_they_arrive() {
        Assert.Equal("unsubscribe", After(Subscribe(1), Unsubscribe(2), Subscribe(1)).Reason);
        Assert.Null(After(Unsubscribe(1), Subscribe(2), Unsubscribe(1)).Reason);
    }

    [Fact]
    public void Suppressing_by_hand_again_keeps_the_date_and_takes_the_last_note() {
        Assert.Equal("b", After(ByHand(1, "a"), ByHand(2, "b")).Note);
        Assert.Equal("a", After(ByHand(1, "a"), ByHand(2)).Note);
        Assert.Equal(At(1), After(ByHand(1, "a"), ByHand(2, "b")).Since);
    }

    [Theory]
    [InlineData("complaint", "bounce", "complaint")]
    [InlineData("bounce", "complaint", "complaint")]
    [InlineData("manual", "unsubscribe", "unsubscribe")]
    [InlineData("unsubscribe", "manual", "unsubscribe")]
    public void Of_two_imported_reasons_the_stronger_stays_with_the_first_date(string first, string second, string stays) {
        var known = After(Imported(first, 5, since: 2), Imported(second, 6, since: 4));

        Assert.Equal((stays, At(2)), (known.Reason, known.Since));
    }

    [Fact]
    public void An_import_takes_its_own_date_and_the_time_of_the_import_where_it_has_none() {
        Assert.Equal(At(1), After(Imported("bounce", 5, since: 1)).Since);
        Assert.Equal(At(5), After(Imported("bounce", 5)).Since);
        Assert.Equal(At(1), After(Bounce(3), Imported("complaint", 5, since: 1)).Since);
    }

    [Fact]
    public void What_an_import_dates_before_a_lift_stays_lifted() {
        Assert.Null(After(ByHand(1), Lift(3), Imported("complaint", 5, since: 2)).Reason);
        Assert.Equal("complaint", After(ByHand(1), Lift(3), Imported("complaint", 5)).Reason);
    }

    [Fact]
    public void An_imported_unsubscription_ends_when_the_person_subscribes_again() {
        Assert.Null(After(Imported("unsubscribe", 5, since: 2), Subscribe(3)).Reason);
        Assert.Equal("unsubscribe", After(Imported("unsubscribe", 5, since: 4), Subscribe(3)).Reason);
        Assert.Null(After(Subscribe(3), Imported("unsubscribe", 5, since: 2)).Reason);
        Assert.Equal("manual", After(ByHand(1), Imported("unsubscribe", 5, since: 2), Subscribe(3)).Reason);
    }

    [Fact]
    public void An_imported_reason_is_told_as_such() =>
        Assert.Equal("An imported list says so (bounce).", After(Imported("bounce")).Because);

    [Fact]
    public void Imported_soft_bounces_outlive_an_unsubscribe_that_is_taken_back() {
        foreach (var known in (Known[])[After(Imported("soft-bounces"), Unsubscribe(5), Subscribe(10)), After(Unsubscribe(), Imported("soft-bounces", 5), Subscribe(10))])
            Assert.Equal(("soft-bounces", "An imported list says so (soft-bounces)."), (known.Reason, known.Because));
    }
}
