public sealed class ReceivingTests {
    [Fact]
    public async Task A_permanent_bounce_suppresses_the_address_before_SNS_has_its_answer() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal((200, "kept"), await app.PostAsync(app.Sns.Bounce("Jane@Example.com")));
        Assert.Equal(200, await app.StatusAsync("/suppressed/jane@example.com"));
    }

    [Fact]
    public async Task A_signed_field_of_over_1000_characters_is_no_envelope_of_SNS() {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("a text");
        envelope["MessageId"] = new string('a', 1001);
        Assert.Equal(400, (await app.PostAsync(app.Sns.Sign(envelope))).Status);
    }

    [Fact]
    public async Task A_recipient_that_cannot_be_normalized_is_kept() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal((200, "kept"), await app.PostAsync(app.Sns.Bounce("a\ufffeb@example.com")));
        Assert.Equal(200, await app.StatusAsync("/suppressed/a%EF%BF%BEb@example.com"));
    }

    [Fact]
    public async Task The_same_bounce_in_both_formats_and_a_retry_count_once() {
        await using var app = await ReceiverApp.StartAsync();
        string first = app.Sns.Signed(FakeSns.SesBounce(["jane@example.com"]));
        await app.PostAsync(first);
        await app.PostAsync(first);
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(["jane@example.com"], format: "notificationType")));
        Assert.Single(await app.HistoryAsync("jane@example.com"));
    }
}
