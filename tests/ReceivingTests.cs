public sealed class ReceivingTests {
    [Fact]
    public async Task A_permanent_bounce_suppresses_the_address_before_SNS_has_its_answer() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal((200, "kept"), await app.PostAsync(app.Sns.Bounce("Jane@Example.com")));
        Assert.Equal(200, await app.StatusAsync("/suppressed/jane@example.com"));
    }
}
