using System.Net.Sockets;
using System.Text;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

/// <summary>Bodies that are too large, come in pieces, or do not come: over a bare socket.</summary>
public sealed class BodyTests {
    const int MiB = 1 << 20;

    /// <summary>Writes to the webhook listener and reads until it closes the connection.</summary>
    static async Task<string> SendAsync(ReceiverApp app, string request, bool thenHangUp = false) {
        var cancellation = TestContext.Current.CancellationToken;
        using var client = new TcpClient();
        await client.ConnectAsync("127.0.0.1", app.Webhook.BaseAddress!.Port, cancellation);
        using var both = new StreamReader(client.GetStream());
        await both.BaseStream.WriteAsync(Encoding.UTF8.GetBytes(request), cancellation);
        if (thenHangUp) client.Client.Shutdown(SocketShutdown.Send);
        try { return await both.ReadToEndAsync(cancellation); } catch (IOException) { return "reset"; }
    }

    static string Head(string length) =>
        $"POST /sns HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}\r\n\r\n";
    static string WithLength(string body) => Head($"Content-Length: {Encoding.UTF8.GetByteCount(body)}") + body;

    static string Chunked(string body, int size) => Head("Transfer-Encoding: chunked")
        + string.Concat(body.Chunk(size).Select(chunk => $"{chunk.Length:x}\r\n{new string(chunk)}\r\n")) + "0\r\n\r\n";

    static string SignedOfExactly(FakeSns sns, int bytes) {
        var envelope = sns.Notification("hello");
        envelope["Padding"] = "";
        envelope["Padding"] = new string('x', bytes - sns.Sign(envelope).Length);
        return envelope.ToJsonString();
    }

    [Theory]
    [InlineData("Content-Length: 200000", "{\"Type\":")]
    [InlineData("Transfer-Encoding: chunked", "8\r\n{\"Type\":\r\n")]
    public async Task Only_sixteen_large_bodies_are_read_at_once_and_small_ones_pass(string length, string half) {
        // Halves may stand for as long as this takes: A_body_that_stops_coming_is_asked_for_again is about how long.
        await using var app = await ReceiverApp.StartAsync(with: builder =>
            builder.Services.PostConfigure<KestrelServerOptions>(kestrel => kestrel.Limits.MinRequestBodyDataRate = null));
        string large = SignedOfExactly(app.Sns, 100_000);
        List<TcpClient> clients = [.. Enumerable.Range(0, 17).Select(_ => new TcpClient("127.0.0.1", app.Webhook.BaseAddress!.Port))];
        try {
            byte[] request = Encoding.UTF8.GetBytes(Head(length) + half), status = new byte[12];
            foreach (var client in clients) await client.GetStream().WriteAsync(request, TestContext.Current.CancellationToken);
            // One of seventeen is answered, whichever comes last, and then it is known that sixteen are being read.
            Task[] answers = [.. clients.Select(client => client.GetStream().ReadExactlyAsync(status, TestContext.Current.CancellationToken).AsTask())];
            await Task.WhenAny(answers).WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
            Assert.Equal("HTTP/1.1 503", Encoding.UTF8.GetString(status));
            Assert.Equal((503, "too much is waiting"), await app.PostAsync(large));
            Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
            _ = Assert.Single(answers, answer => answer.IsCompleted);
        } finally { clients.ForEach(client => client.Dispose()); }
        await Eventually.TrueAsync(async () => (await app.PostAsync(large)).Status == 200);
    }

    [Fact]
    public async Task A_length_over_1_MiB_is_refused_before_the_body_is_sent() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.StartsWith("HTTP/1.1 413 ", await SendAsync(app, Head($"Content-Length: {MiB + 1}")));
    }

    [Theory]
    [InlineData("in large chunks", MiB + 1, 64 << 10)]
    [InlineData("in small chunks", MiB + 1, 1000)]
    public async Task A_body_over_1_MiB_that_does_not_tell_its_length_is_refused(string how, int bytes, int chunk) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.StartsWith("HTTP/1.1 413 ", await SendAsync(app, Chunked(new string('x', bytes), chunk)));
        Assert.Equal((how, 200), (how, (await app.PostAsync(app.Sns.Signed("hello"))).Status));
    }

    [Fact]
    public async Task A_body_of_exactly_1_MiB_is_read() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.StartsWith("HTTP/1.1 200 ", await SendAsync(app, WithLength(SignedOfExactly(app.Sns, MiB))));
    }

    [Theory]
    [InlineData(64 << 10)]
    [InlineData(1000)]
    public async Task A_body_of_exactly_1_MiB_is_read_in_chunks_too(int chunk) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.StartsWith("HTTP/1.1 200 ", await SendAsync(app, Chunked(SignedOfExactly(app.Sns, MiB), chunk)));
    }

    [Fact]
    public async Task A_body_in_chunks_of_one_byte_is_read() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.StartsWith("HTTP/1.1 200 ", await SendAsync(app, Chunked(app.Sns.Bounce("jane@example.com"), 1)));
    }

    [Theory]
    [InlineData("Content-Length: 5000", "{\"Type\":")]
    [InlineData("Transfer-Encoding: chunked", "8\r\n{\"Type\":\r\n")]
    [InlineData("Transfer-Encoding: chunked", "ff\r\n{\"Type\":")]
    public async Task Half_a_body_and_then_the_end_is_never_answered_as_if_it_were_all(string length, string half) {
        await using var app = await ReceiverApp.StartAsync();
        string answer = await SendAsync(app, Head(length) + half, thenHangUp: true);
        Assert.DoesNotMatch("^HTTP/1.1 [24]", answer);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }

    // Takes the ten seconds that the server waits: a stop that waits for longer keeps look-ups from their answer.
    [Fact]
    public async Task Half_a_body_does_not_keep_the_receiver_from_stopping() {
        await using var app = await ReceiverApp.StartAsync();
        using var client = new TcpClient("127.0.0.1", app.Webhook.BaseAddress!.Port);
        await client.GetStream().WriteAsync(Encoding.UTF8.GetBytes(Head("Content-Length: 5000") + "{\"Type\":"), TestContext.Current.CancellationToken);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
        await app.StopAsync().WaitAsync(TimeSpan.FromSeconds(20), TestContext.Current.CancellationToken);
    }

    // Takes the five seconds that the server waits.
    [Fact]
    public async Task A_body_that_stops_coming_is_asked_for_again() {
        await using var app = await ReceiverApp.StartAsync();
        string[] answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(_ =>
            SendAsync(app, Head("Content-Length: 5000") + "{\"Type\":")));
        Assert.All(answers, answer => Assert.DoesNotMatch("^HTTP/1.1 [24]", answer));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }

    [Fact]
    public async Task While_many_bodies_are_half_there_a_whole_one_is_received() {
        await using var app = await ReceiverApp.StartAsync();
        byte[] half = Encoding.UTF8.GetBytes(Head("Content-Length: 5000") + "{\"Type\":");
        int port = app.Webhook.BaseAddress!.Port;
        var clients = Enumerable.Range(0, 50).Select(_ => new TcpClient("127.0.0.1", port)).ToList();
        clients.ForEach(client => client.Client.Send(half));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
        clients.ForEach(client => client.Dispose());
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }
}
