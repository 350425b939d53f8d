using System.Net;
using System.Net.Sockets;
using System.Text;

/// <summary>POST /sendable: addresses in, those that may get mail out.</summary>
public sealed class SendableTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    static async Task<(int Status, string Text, string LeftOut)> PostAsync(ReceiverApp app, byte[] body) {
        using var response = await app.Private.PostAsync("/sendable", new ByteArrayContent(body), Cancellation);
        string leftOut = response.Headers.TryGetValues("X-Left-Out", out var values) ? values.Single() : "";
        return ((int)response.StatusCode, await response.Content.ReadAsStringAsync(Cancellation), leftOut);
    }

    static Task<(int Status, string Text, string LeftOut)> PostAsync(ReceiverApp app, string body) => PostAsync(app, Encoding.UTF8.GetBytes(body));

    /// <summary>A receiver with b@example.com suppressed.</summary>
    static async Task<ReceiverApp> StartAsync() {
        var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("b@example.com"));
        return app;
    }

    [Fact]
    public async Task Order_and_spelling_are_kept_and_the_suppressed_are_left_out_however_they_are_spelled() {
        await using var app = await StartAsync();
        string body = "c@example.com\nB@Example.COM\n  A@example.com \nJane <b@example.com>\nc@example.com\nb@example.com.au\n";
        Assert.Equal((200, "c@example.com\n  A@example.com \nc@example.com\nb@example.com.au\n", "2 suppressed, 0 no address"), await PostAsync(app, body));
    }

    [Theory]
    [InlineData("", "")]
    [InlineData("\r\n \n", "")]
    [InlineData("a@example.com", "a@example.com")]
    [InlineData("\ufeffa@example.com\r\nb@example.com\r\nc@example.com\r\n", "a@example.com\r\nc@example.com\r\n")]
    [InlineData("b@example.com", "")]
    public async Task Ends_of_lines_stay_as_they_are_and_blank_lines_go(string body, string expected) {
        await using var app = await StartAsync();
        Assert.Equal((200, expected), ((await PostAsync(app, body)) is var (status, text, _) ? (status, text) : default));
    }

    [Theory]
    [InlineData("nobody")]
    [InlineData("a@example.com,Jane")]
    [InlineData("b@example.com, Jane <a@example.com>")]
    [InlineData("b@example.com <a@example.com>")]
    [InlineData("<b@example.com> <a@example.com>")]
    [InlineData("\"b@example.com <a@example.com>")]
    [InlineData("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")]
    [InlineData("a@@example.com")]
    [InlineData("\0\u0001\u0002")]
    public async Task What_is_no_address_or_more_than_one_is_never_called_sendable(string line) {
        await using var app = await StartAsync();
        Assert.Equal((200, "ok@example.com\n", "0 suppressed, 1 no address"), await PostAsync(app, line + "\nok@example.com\n"));
    }

    [Theory]
    [InlineData("\"b@home\" <a@example.com>")]
    [InlineData("\"jane doe\"@example.com")]
    [InlineData("a@m\u00fcnchen.example")]
    public async Task A_display_name_a_quoted_name_and_an_international_domain_are_addresses(string line) {
        await using var app = await StartAsync();
        Assert.Equal((200, line + "\n", "0 suppressed, 0 no address"), await PostAsync(app, line + "\n"));
    }

    [Fact]
    public async Task Half_UTF_8_binary_rubbish_and_a_line_of_ten_megabytes_are_left_out_and_the_rest_is_answered() {
        await using var app = await StartAsync();
        byte[] ok = "ok@example.com\n"u8.ToArray(), rubbish = new byte[200_000];
        new Random(1).NextBytes(rubbish);
        rubbish.AsSpan().Replace((byte)'\n', (byte)0);
        byte[] body = [.. "jos\u00e9@example.com"u8[..4], .. "@example.com\n"u8, .. rubbish, (byte)'\n', .. new byte[10 << 20], (byte)'\n', .. ok,
            .. Enumerable.Repeat((byte)'a', 64 << 10), .. "@example.com\n"u8, .. ok, .. new byte[300_000]];
        Assert.Equal((200, "ok@example.com\nok@example.com\n", "0 suppressed, 5 no address"), await PostAsync(app, body));
    }

    [Fact]
    public async Task A_long_list_is_answered_whole() {
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOf([.. Enumerable.Range(0, 3000).Select(number => Lines.Suppress($"a{number * 10}@example.com"))]));
        string[] lines = [.. Enumerable.Range(0, 30_000).Select(number => $"A{number}@example.com")];
        Assert.Equal((200, string.Concat(lines.Where((_, number) => number % 10 > 0).Select(line => line + "\n")), "3000 suppressed, 0 no address"),
            await PostAsync(app, string.Join('\n', lines) + "\n"));
    }

    [Fact]
    public async Task A_client_that_sends_all_before_it_reads_is_answered() {
        await using var app = await StartAsync();
        byte[] line = "somebody@example.com\n"u8.ToArray();
        const int Count = 1_000_000;
        using var socket = new TcpClient();
        (socket.SendBufferSize, socket.ReceiveBufferSize) = (4096, 4096);
        await socket.ConnectAsync(IPAddress.Loopback, app.Private.BaseAddress!.Port, Cancellation);
        var stream = socket.GetStream();
        await stream.WriteAsync(Encoding.ASCII.GetBytes($"POST /sendable HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {line.Length * Count}\r\n\r\n"), Cancellation);
        byte[] many = [.. Enumerable.Repeat(line, 1000).SelectMany(each => each)];
        for (int i = 0; i < Count / 1000; i++) await stream.WriteAsync(many, Cancellation);
        using var all = new MemoryStream();
        await stream.CopyToAsync(all, Cancellation);
        Assert.True(all.Length > (long)line.Length * Count);
        Assert.StartsWith("HTTP/1.1 200 OK", Encoding.ASCII.GetString(all.GetBuffer(), 0, 100), StringComparison.Ordinal);
    }

    [Fact]
    public async Task When_it_cannot_be_told_it_is_503_and_no_list() {
        using var reading = new HeldLog("reading the journal");
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOfBounces(20_000), with: reading.Hold);
        using var released = reading.Reached; // a receiver that is held cannot stop
        await reading.Reached.ReachedAsync();
        var (status, text, _) = await PostAsync(app, "free@example.com\n");
        Assert.Equal(503, status);
        Assert.DoesNotContain("free@example.com", text, StringComparison.Ordinal);
        reading.Reached.LetGo();
        await Eventually.TrueAsync(async () => (await PostAsync(app, "free@example.com\n")).Status == 200);
    }

    [Fact]
    public async Task More_than_256_MiB_is_413() {
        await using var app = await StartAsync();
        foreach (string path in (string[])["/sendable", "/suppressed"]) {
            using var socket = new TcpClient();
            await socket.ConnectAsync(IPAddress.Loopback, app.Private.BaseAddress!.Port, Cancellation);
            var stream = socket.GetStream();
            await stream.WriteAsync(Encoding.ASCII.GetBytes($"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {(256 << 20) + 1}\r\n\r\n"), Cancellation);
            string answer = await new StreamReader(stream).ReadToEndAsync(Cancellation);
            Assert.StartsWith("HTTP/1.1 413", answer, StringComparison.Ordinal);
            Assert.Contains("application/problem+json", answer, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Without_a_temporary_folder_it_is_503_and_told() {
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        using var app = await OwnProcess.StartAsync(folder, "TMPDIR=" + Path.Combine(folder, "none"));
        using var response = await app.Private.PostAsync("/sendable", new StringContent("a@example.com\n"), Cancellation);
        Assert.Equal((503, "application/problem+json"), ((int)response.StatusCode, response.Content.Headers.ContentType?.MediaType));
        Assert.Equal("5", response.Headers.GetValues("Retry-After").Single());
        Assert.Contains("temporary folder", await response.Content.ReadAsStringAsync(Cancellation), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_list_leaves_nothing_in_the_temporary_folder() {
        await using var app = await StartAsync();
        string[] before = Directory.GetFiles(Path.GetTempPath(), "feedback-*");
        await PostAsync(app, "a@example.com\n");
        Assert.Empty(Directory.GetFiles(Path.GetTempPath(), "feedback-*").Except(before));
    }
}
