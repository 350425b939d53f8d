using Step = System.Func<Known, int, Known>;

/// <summary>What happens to one address in one morning, in the words of the field. Times are minutes; a step takes what
/// is known and the soft bounce limit, and gives what is known after it.</summary>
static class Story {
    static readonly DateTimeOffset Morning = new(2026, 11, 24, 7, 0, 0, TimeSpan.Zero);

    public static DateTimeOffset At(int minute) => Morning.AddMinutes(minute);

    public static Feedback Said(
        string kind, string? type, string? subType, int at, string? mail, bool possible = false) =>
        new(kind, "jane@example.com", "Jane Doe <Jane@example.com>", At(at), type, subType, null,
            "550 said the other side", possible, mail, "Your offers", null, null, null, null,
            $"sns-{kind}-{type}-{at}");

    public static Step Event(string kind, string? type = null, string? subType = null, int at = 0,
        string? mail = "mail", bool possible = false) =>
        (known, limit) => Judgement.Of(Said(kind, type, subType, at, mail, possible), known, limit);

    public static Step Bounce(int at = 0) => Event("Bounce", "Permanent", "General", at);
    public static Step Complaint(int at = 0) => Event("Complaint", "abuse", null, at);
    public static Step Unsubscribe(int at = 0) => Event("Subscription", "unsubscribeAll", null, at);
    public static Step Subscribe(int at = 0) => Event("Subscription", "subscribed", null, at);
    public static Step Soft(string mail, int at = 0, string? subType = "MailboxFull") =>
        Event("Bounce", "Transient", subType, at, mail);
    public static Step AutoReply(string mail, int at = 0) => Soft(mail, at, "General");
    public static Step Delivery(string mail, int at = 0) => Event("Delivery", at: at, mail: mail);
    public static Step ByHand(int at = 0, string? note = null) =>
        (known, _) => Judgement.Of(new ManualSuppression("jane@example.com", "manual", note), At(at), known);
    public static Step Imported(string reason, int at = 0, int? since = null, string? note = null) =>
        (known, _) => Judgement.Of(new ManualSuppression("jane@example.com", reason, note, since is { } minute ? At(minute) : null), At(at), known);
    public static Step Lift(int at) => (known, _) => Judgement.Lifted(At(at), known);

    public static Known After(params Step[] steps) => AfterWith(0, steps);
    public static Known AfterWith(int limit, params Step[] steps) => Apply(Known.Nothing, limit, steps);
    public static Known Apply(Known known, int limit, IEnumerable<Step> steps) =>
        steps.Aggregate(known, (before, step) => step(before, limit));
}
