using static Story;

/// <summary>Suppression:SoftBounceLimit. So many soft bounces in a row, with no Delivery between, suppress.</summary>
public sealed class SoftBounceTests {
    [Fact]
    public void The_limit_suppresses_with_the_date_of_the_last_and_not_one_earlier() {
        Assert.Null(AfterWith(3, Soft("m1", 1), Soft("m2", 2)).Reason);

        var known = AfterWith(3, Soft("m1", 1), Soft("m2", 2), Soft("m3", 3));
        Assert.Equal(("soft-bounces", At(3)), (known.Reason, known.Since));
        Assert.Contains("550 said the other side", known.Because, StringComparison.Ordinal);
    }

    [Fact]
    public void With_limit_0_they_never_do() =>
        Assert.Same(Known.Nothing, AfterWith(0, [.. Enumerable.Range(1, 200).Select(mail => Soft($"m{mail}", mail))]));

    [Theory]
    [InlineData("Transient", "MailboxFull", "soft-bounces")]
    [InlineData("Transient", "General", "soft-bounces")]
    [InlineData("Transient", "Invented", "soft-bounces")]
    [InlineData("Transient", null, "soft-bounces")]
    [InlineData("Undetermined", "Undetermined", "soft-bounces")]
    [InlineData("Transient", "MessageTooLarge", null)]
    [InlineData("Transient", "ContentRejected", null)]
    [InlineData("Transient", "AttachmentRejected", null)]
    [InlineData("Transient", "CustomTimeoutExceeded", null)]
    public void Only_what_the_address_can_help_counts(string type, string? subType, string? reason) =>
        Assert.Equal(reason, AfterWith(1, Event("Bounce", type, subType)).Reason);

    [Fact]
    public void A_Delivery_between_begins_the_count_anew() {
        Assert.Null(AfterWith(2, Soft("m1", 1), Delivery("m2", 2), Soft("m3", 3)).Reason);
        Assert.Equal("soft-bounces", AfterWith(2, Delivery("m2", 2), Soft("m3", 3), Soft("m4", 4)).Reason);
    }

    [Fact]
    public void A_Delivery_counts_by_its_date_and_not_by_when_it_arrives() {
        Assert.Null(AfterWith(3, Soft("m1", 1), Soft("m3", 3), Delivery("m2", 2), Soft("m4", 4)).Reason);
        Assert.Null(AfterWith(2, Delivery("m2", 2), Soft("m1", 1), Soft("m3", 3)).Reason);
        Assert.Equal("soft-bounces", AfterWith(2, Soft("m1", 2), Delivery("m0", 1), Soft("m3", 3)).Reason);
    }

    [Fact]
    public void A_Delivery_lifts_nothing() =>
        Assert.Equal("soft-bounces", AfterWith(2, Soft("m1", 1), Soft("m2", 2), Delivery("m3", 3)).Reason);

    [Fact]
    public void The_same_bounce_again_does_not_count_again() =>
        Assert.Null(AfterWith(2, Soft("m1", 1), Soft("m1", 1), Soft("m1", 2)).Reason);

    [Fact]
    public void A_lift_begins_the_count_anew() =>
        Assert.Null(AfterWith(2, Soft("m1", 1), Lift(2), Soft("m2", 3)).Reason);

    [Fact]
    public void An_auto_reply_never_counts_whether_the_Delivery_of_its_mail_comes_before_or_after() {
        Assert.Null(AfterWith(1, Delivery("m1", 1), AutoReply("m1", 2)).Reason);
        Assert.Null(AfterWith(2, AutoReply("m1", 2), Delivery("m1", 1), Soft("m2", 3)).Reason);
        Assert.Null(AfterWith(2, AutoReply("m1", 1), Delivery("m1", 2), Soft("m2", 3)).Reason);
    }

    [Fact]
    public void Auto_replies_to_several_mails_never_count_in_whatever_order_they_come() {
        Assert.Null(AfterWith(1, Delivery("m1", 1), Delivery("m2", 2), AutoReply("m1", 3), AutoReply("m2", 4)).Reason);
        Assert.Null(AfterWith(2, Delivery("m2", 2), AutoReply("m1", 3), Delivery("m1", 1), Soft("m3", 4)).Reason);
    }

    [Fact]
    public void What_is_no_auto_reply_counts_even_after_the_Delivery_of_its_mail() {
        Assert.Equal("soft-bounces", AfterWith(1, Delivery("m1", 1), Soft("m1", 2)).Reason);
        Assert.Equal("soft-bounces", AfterWith(1, Delivery("m1", 1), AutoReply("m2", 2)).Reason);
    }
}
