using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;

/// <summary>GET, HEAD, PUT and DELETE /suppressed/{address}.</summary>
public sealed class LookupTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    static async Task<HttpResponseMessage> SendAsync(ReceiverApp app, string method, string path, string? body = null) {
        using var request = new HttpRequestMessage(new HttpMethod(method), path);
        request.Content = body is null ? null : new StringContent(body);
        return await app.Private.SendAsync(request, Cancellation);
    }

    static async Task<int> StatusAsync(ReceiverApp app, string method, string path, string? body = null) {
        using var response = await SendAsync(app, method, path, body);
        return (int)response.StatusCode;
    }

    /// <summary>Sends the request line as it stands, and returns the whole answer as text.</summary>
    static async Task<string> SendRawAsync(ReceiverApp app, string requestLine) {
        using var client = new TcpClient("127.0.0.1", app.Private.BaseAddress!.Port);
        await using var stream = client.GetStream();
        string request = requestLine + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        await stream.WriteAsync(Encoding.UTF8.GetBytes(request), Cancellation);
        using var reader = new StreamReader(stream);
        return await reader.ReadToEndAsync(Cancellation);
    }

    [Fact]
    public async Task A_suppressed_address_answers_200_with_all_that_a_support_person_needs() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("Jane@Example.com"));

        using var response = await SendAsync(app, "GET", "/suppressed/jane@example.com");
        var answer = await response.Content.ReadFromJsonAsync<JsonElement>(Cancellation);

        Assert.Equal((200, "true"), ((int)response.StatusCode, response.Headers.GetValues("X-Suppressed").Single()));
        Assert.Equal("jane@example.com", answer.GetProperty("address").GetString());
        Assert.True(answer.GetProperty("suppressed").GetBoolean());
        Assert.Equal("bounce", answer.GetProperty("reason").GetString());
        Assert.Equal(app.Clock.GetUtcNow().AddHours(-1), answer.GetProperty("since").GetDateTimeOffset());
        Assert.Contains("user unknown", answer.GetProperty("because").GetString(), StringComparison.Ordinal);
        Assert.Contains("0100019a00000000-mail", answer.GetProperty("event").GetString(), StringComparison.Ordinal);
        Assert.Equal(JsonValueKind.Null, answer.GetProperty("note").ValueKind);
        Assert.Contains("curl -X DELETE", answer.GetProperty("lift").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_address_that_is_not_suppressed_answers_404_and_says_so() {
        await using var app = await ReceiverApp.StartAsync();

        using var response = await SendAsync(app, "GET", "/suppressed/jane@example.com");
        var answer = await response.Content.ReadFromJsonAsync<JsonElement>(Cancellation);

        Assert.Equal((404, "false"), ((int)response.StatusCode, response.Headers.GetValues("X-Suppressed").Single()));
        Assert.False(answer.GetProperty("suppressed").GetBoolean());
        Assert.Equal(JsonValueKind.Null, answer.GetProperty("reason").ValueKind);
        Assert.NotEmpty(answer.GetProperty("because").GetString()!);
    }

    [Fact]
    public async Task HEAD_answers_as_GET_does_without_a_body() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));

        string[] suppressed = (await SendRawAsync(app, "HEAD /suppressed/jane@example.com")).Split("\r\n\r\n");
        string[] free = (await SendRawAsync(app, "HEAD /suppressed/joe@example.com")).Split("\r\n\r\n");

        Assert.StartsWith("HTTP/1.1 200 ", suppressed[0], StringComparison.Ordinal);
        Assert.Contains("X-Suppressed: true", suppressed[0], StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 404 ", free[0], StringComparison.Ordinal);
        Assert.Contains("X-Suppressed: false", free[0], StringComparison.Ordinal);
        Assert.Equal(("", ""), (suppressed[1], free[1]));
    }

    [Theory]
    [InlineData("/suppressed/j%FCrgen@example.com")] // Latin-1
    [InlineData("/suppressed/j%c3rgen@example.com")] // half of an ü
    [InlineData("/suppressed/50%ab@example.com")]
    [InlineData("/suppressed//jane@example.com")]
    [InlineData("/suppressed/./jane@example.com")]
    [InlineData("/suppressed/%2e/jane@example.com")]
    [InlineData("/%73uppressed/a%2Fb@example.com")]
    [InlineData("/%73uppressed/j%FCrgen@example.com")]
    public async Task What_cannot_be_told_for_an_address_is_never_called_free(string path) {
        await using var app = await ReceiverApp.StartAsync();
        foreach (string method in (string[])["GET", "PUT", "DELETE"])
            Assert.StartsWith("HTTP/1.1 400 ", await SendRawAsync(app, $"{method} {path}"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("j%C3%BCrgen@example.com", "jürgen@example.com")]
    [InlineData("50%25ab@example.com", "50%ab@example.com")]
    [InlineData("50%2525ab@example.com", "50%25ab@example.com")]
    [InlineData("100%@example.com", "100%@example.com")]
    [InlineData("%2Fg=jane@example.com", "/g=jane@example.com")]
    [InlineData("a/b@example.com", "a/b@example.com")]
    public async Task Signs_that_are_rare_in_an_address_are_found_in_it(string path, string address) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce(address));
        Assert.StartsWith("HTTP/1.1 200 ", await SendRawAsync(app, "GET /suppressed/" + path), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("GET", "/suppressed/jane")]
    [InlineData("GET", "/suppressed/")]
    [InlineData("GET", "/suppressed/ja%20ne@example.com")]
    [InlineData("GET", "/suppressed/jane@example.com%0Ajoe@example.com")]
    [InlineData("PUT", "/suppressed/jane")]
    [InlineData("DELETE", "/suppressed/jane")]
    [InlineData("GET", "/history/jane")]
    public async Task What_is_no_address_answers_400_as_problem_details(string method, string path) {
        await using var app = await ReceiverApp.StartAsync();

        using var response = await SendAsync(app, method, path);
        var problem = await response.Content.ReadFromJsonAsync<JsonElement>(Cancellation);

        Assert.Equal((400, 400), ((int)response.StatusCode, problem.GetProperty("status").GetInt32()));
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
        Assert.False(response.Headers.Contains("X-Suppressed"));
    }

    [Theory]
    [InlineData("jane+news@example.com", "/suppressed/jane+news@example.com")]
    [InlineData("jane+news@example.com", "/suppressed/JANE%2Bnews%40Example.com")]
    [InlineData("jane@example.com", "/suppressed/Jane%20Doe%20%3Cjane@example.com%3E")]
    [InlineData("jane@example.com", "/suppressed/jane@example.com?format=json&x=/suppressed/joe@example.com")]
    [InlineData("jane@example.com", "/SUPPRESSED/jane@example.com")]
    [InlineData("jane@example.com", "http://localhost/suppressed/jane@example.com")]
    [InlineData("a/b@example.com", "/suppressed/a/b@example.com")]
    [InlineData("a/b@example.com", "/suppressed/a%2Fb@example.com")]
    [InlineData("a%2fb@example.com", "/suppressed/a%252Fb@example.com")]
    [InlineData("50%@example.com", "/suppressed/50%25@example.com")]
    [InlineData("what?@example.com", "/suppressed/what%3F@example.com")]
    [InlineData("o'neil@example.com", "/suppressed/o'neil@example.com")]
    [InlineData("\"jane doe\"@example.com", "/suppressed/%22jane%20doe%22@example.com")]
    [InlineData("\"jane\"@example.com", "/suppressed/\"jane\"@example.com")]
    [InlineData("a@münchen.example", "/suppressed/a@m%C3%BCnchen.example")]
    [InlineData("a@münchen.example", "/suppressed/a@mu%CC%88nchen.example")]
    [InlineData("a@münchen.example", "/suppressed/a@xn--mnchen-3ya.example")]
    [InlineData("a@xn--mnchen-3ya.example", "/suppressed/a@M%c3%9cNCHEN.example")]
    [InlineData("josé@example.com", "/suppressed/jose%cc%81@example.com")]
    public async Task An_address_is_found_as_people_type_it(string bounced, string target) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce([bounced])));

        Assert.StartsWith("HTTP/1.1 200 ", await SendRawAsync(app, "GET " + target), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 204 ", await SendRawAsync(app, "DELETE " + target), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 404 ", await SendRawAsync(app, "GET " + target), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_SES_bounced_is_found_and_lifted_even_when_it_is_no_address() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("Weird Stuff"));

        Assert.Equal(200, await StatusAsync(app, "GET", "/suppressed/weird%20stuff"));
        Assert.Equal(204, await StatusAsync(app, "DELETE", "/suppressed/weird%20stuff"));
        Assert.Equal(400, await StatusAsync(app, "GET", "/suppressed/weird%20stuff"));
    }

    [Fact]
    public async Task An_answer_names_no_other_address() {
        await using var app = await ReceiverApp.StartAsync();
        string[] bounced = ["jane@example.com", "joe@example.com", "jane@example.net"];
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(bounced)));

        Assert.DoesNotContain("joe@", await app.Private.GetStringAsync("/suppressed/jane@example.com", Cancellation),
            StringComparison.Ordinal);
        Assert.DoesNotContain(".net", await app.Private.GetStringAsync("/suppressed/jane@example.com", Cancellation),
            StringComparison.Ordinal);
        Assert.Equal(404, await StatusAsync(app, "GET", "/suppressed/ane@example.com"));
    }
}
