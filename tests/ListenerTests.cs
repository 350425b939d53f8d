using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Text;
using Microsoft.Extensions.Configuration;
using Header = (string Name, string Value);

/// <summary>Two listeners, and who may ask what on which.</summary>
public sealed class ListenerTests {
    const string Key = "a key of 16 chars", SetKey = "Api:Key=" + Key, Jane = "/suppressed/jane@example.com";

    static async Task<HttpResponseMessage> GetAsync(HttpClient client, string path, params Header[] headers) {
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        foreach (var (name, value) in headers) Assert.True(request.Headers.TryAddWithoutValidation(name, value));
        return await client.SendAsync(request, TestContext.Current.CancellationToken);
    }

    static async Task<int> StatusAsync(HttpClient client, string path, params Header[] headers) {
        using var response = await GetAsync(client, path, headers);
        return (int)response.StatusCode;
    }

    static Header Authorization(string scheme, string credentials) => ("Authorization", $"{scheme} {credentials}");
    static string Base64(string text) => Convert.ToBase64String(Encoding.UTF8.GetBytes(text));

    [Theory]
    [InlineData("without a key", "Api:Key=")]
    [InlineData("with a key", SetKey)]
    public async Task The_webhook_listener_answers_sns_and_health_to_everyone(string set, string setting) {
        await using var app = await ReceiverApp.StartAsync([setting]);
        Assert.Equal((set, 200), (set, (await app.PostAsync(app.Sns.Bounce("jane@example.com"))).Status));
        foreach (string path in (string[])["/sns", "/health"])
            Assert.Equal((path, 200), (path, await StatusAsync(app.Webhook, path, ("Host", "feedback.example.com"))));
    }

    [Theory]
    [InlineData("/suppressed/jane@example.com")]
    [InlineData("/history/jane@example.com")]
    [InlineData("/sns/suppressed/jane@example.com")]
    [InlineData("/health/../suppressed/jane@example.com")]
    [InlineData("/SUPPRESSED/jane@example.com")]
    [InlineData("/nothing")]
    [InlineData("/")]
    public async Task Without_a_key_the_webhook_listener_has_nothing_else(string path) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        using var response = await GetAsync(app.Webhook, path, ("Host", "localhost"), Authorization("Bearer", ""));
        Assert.Equal((404, false), ((int)response.StatusCode, response.Headers.Contains("X-Suppressed")));
    }

    [Theory]
    [InlineData("PUT")]
    [InlineData("DELETE")]
    public async Task Without_a_key_nothing_can_be_changed_by_the_webhook_listener(string method) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        foreach (string address in (string[])["jane@example.com", "joan@example.com"]) {
            using var request = new HttpRequestMessage(new HttpMethod(method), "/suppressed/" + address);
            using var response = await app.Webhook.SendAsync(request, TestContext.Current.CancellationToken);
            Assert.Equal(HttpStatusCode.NotFound, response.StatusCode);
        }
        Assert.Equal(200, await app.StatusAsync(Jane));
        Assert.Equal(404, await app.StatusAsync("/suppressed/joan@example.com"));
    }

    [Fact]
    public void A_private_listener_in_whatever_letters_is_refused_where_others_could_reach_it_without_a_key() {
        var settings = new ConfigurationBuilder().AddInMemoryCollection([new("KESTREL:ENDPOINTS:PRIVATE:URL", "http://0.0.0.0:0")]).Build();
        Assert.Throws<Refusal>(() => Guard.Listen(new(), settings));
    }

    [Fact]
    public async Task Who_brings_no_key_is_asked_for_it() {
        await using var app = await ReceiverApp.StartAsync([SetKey]);
        using var response = await GetAsync(app.Webhook, Jane);
        Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);
        Assert.Equal(["Bearer", "Basic"], response.Headers.WwwAuthenticate.Select(header => header.Scheme));
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
    }

    [Theory]
    [InlineData("Bearer", Key)]
    [InlineData("bearer", Key)]
    [InlineData("BEARER", Key)]
    [InlineData("Basic", "{base64}:" + Key)]
    [InlineData("basic", "{base64}anybody:" + Key)]
    public async Task The_key_opens_the_webhook_listener_by_either_scheme(string scheme, string credentials) {
        await using var app = await ReceiverApp.StartAsync([SetKey]);
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        if (credentials.StartsWith("{base64}", StringComparison.Ordinal)) credentials = Base64(credentials[8..]);
        Assert.Equal(200, await StatusAsync(app.Webhook, Jane, Authorization(scheme, credentials)));
    }

    [Theory]
    [InlineData("Bearer", "another key of 17")]
    [InlineData("Bearer", Key + "x")]
    [InlineData("Bearer", "a key of 16 char")]
    [InlineData("Bearer", "A KEY OF 16 CHARS")]
    [InlineData("Bearer", "")]
    [InlineData("Basic", Key)]
    [InlineData("Basic", "{base64}" + Key + ":")]
    [InlineData("Basic", "{base64}:" + Key + "x")]
    [InlineData("Basic", "not base64")]
    [InlineData("Digest", Key)]
    [InlineData("Bearer,Basic", Key)]
    public async Task Any_other_key_is_refused(string scheme, string credentials) {
        await using var app = await ReceiverApp.StartAsync([SetKey]);
        if (credentials.StartsWith("{base64}", StringComparison.Ordinal)) credentials = Base64(credentials[8..]);
        Assert.Equal(401, await StatusAsync(app.Webhook, Jane, Authorization(scheme, credentials)));
    }

    [Theory]
    [InlineData("/suppressed/jane@example.com?key=" + Key)]
    [InlineData("/suppressed/jane@example.com?access_token=" + Key)]
    public async Task A_key_in_the_URL_is_none(string path) {
        await using var app = await ReceiverApp.StartAsync([SetKey]);
        Assert.Equal(401, await StatusAsync(app.Webhook, path));
    }

    [Theory]
    [InlineData("localhost")]
    [InlineData("LOCALHOST:8081")]
    [InlineData("127.0.0.1")]
    [InlineData("127.0.0.1:8081")]
    [InlineData("127.8.9.1")]
    [InlineData("[::1]")]
    [InlineData("[::1]:8081")]
    public async Task The_private_listener_answers_to_the_names_of_this_machine_without_a_key(string host) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        Assert.Equal(200, await StatusAsync(app.Private, Jane, ("Host", host)));
    }

    [Theory]
    [InlineData("evil.example")]
    [InlineData("localhost.evil.example")]
    [InlineData("127.0.0.1.evil.example")]
    [InlineData("evil.example:8081")]
    [InlineData("192.0.2.1")]
    [InlineData("0.0.0.0")]
    [InlineData("[::2]")]
    public async Task The_private_listener_answers_to_no_other_name(string host) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        using var response = await GetAsync(app.Private, Jane, ("Host", host));
        Assert.Equal((403, false), ((int)response.StatusCode, response.Headers.Contains("X-Suppressed")));
    }

    [Theory]
    [InlineData("http://evil.example", 403)]
    [InlineData("https://localhost.evil.example", 403)]
    [InlineData("null", 403)]
    [InlineData("http://localhost:8081", 200)]
    [InlineData("http://127.0.0.1:3000", 200)]
    public async Task The_private_listener_answers_to_no_page_from_elsewhere(string origin, int status) {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        Assert.Equal(status, await StatusAsync(app.Private, Jane, ("Origin", origin)));
    }

    [Fact]
    public async Task The_key_opens_the_private_listener_under_any_name() {
        await using var app = await ReceiverApp.StartAsync([SetKey]);
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        Header host = ("Host", "mail.internal");
        Assert.Equal(403, await StatusAsync(app.Private, Jane, host));
        Assert.Equal(200, await StatusAsync(app.Private, Jane, host, Authorization("Bearer", Key)));
        Assert.Equal(200, await StatusAsync(app.Private, Jane));
    }

    [Theory]
    [InlineData("X-Forwarded-For", "127.0.0.1")]
    [InlineData("X-Forwarded-Host", "localhost:8081")]
    [InlineData("X-Forwarded-Proto", "https")]
    [InlineData("X-Forwarded-Port", "8081")]
    [InlineData("X-Original-Host", "localhost")]
    [InlineData("X-Real-IP", "127.0.0.1")]
    [InlineData("Forwarded", "for=127.0.0.1;host=localhost")]
    [InlineData("X-Original-URL", "/health")]
    [InlineData("X-HTTP-Method-Override", "POST")]
    public async Task What_a_proxy_says_of_the_client_changes_nothing(string header, string value) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(404, await StatusAsync(app.Webhook, Jane, (header, value), ("Host", "localhost:8081")));
        Assert.Equal(403, await StatusAsync(app.Private, Jane, (header, value), ("Host", "evil.example")));
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        Assert.Equal(200, await StatusAsync(app.Private, Jane, (header, value.Replace("127.0.0.1", "192.0.2.1"))));
    }

    [Fact]
    public async Task Nobody_is_let_in_by_what_a_header_says_of_the_client_even_where_the_framework_believes_it() {
        var elsewhere = NetworkInterface.GetAllNetworkInterfaces().SelectMany(each => each.GetIPProperties().UnicastAddresses)
            .Select(each => each.Address).FirstOrDefault(each => each.AddressFamily == AddressFamily.InterNetwork && !IPAddress.IsLoopback(each));
        Assert.SkipUnless(elsewhere is not null, "this machine has no address but loopback");
        await using var app = await ReceiverApp.StartAsync([SetKey, "Kestrel:Endpoints:Private:Url=http://0.0.0.0:0", "ForwardedHeaders_Enabled=true"]);
        string url = $"http://{elsewhere}:{app.Private.BaseAddress!.Port}/suppressed/jane@example.com";
        Header local = ("Host", "localhost"), forwarded = ("X-Forwarded-For", "127.0.0.1");
        Assert.Equal(401, await StatusAsync(app.Private, url, local, forwarded));
        Assert.Equal(404, await StatusAsync(app.Private, url, local, forwarded, Authorization("Bearer", Key)));
        string loopback = $"http://127.0.0.1:{app.Private.BaseAddress!.Port}/suppressed/jane@example.com";
        Assert.Equal(401, await StatusAsync(app.Private, loopback, ("X-Forwarded-For", "192.0.2.7"))); // by a proxy on this machine
        Assert.Equal(404, await StatusAsync(app.Private, loopback));
    }

    [Fact]
    public async Task With_a_key_the_private_listener_may_be_reached_from_other_machines() {
        await using var app = await ReceiverApp.StartAsync([SetKey, "Kestrel:Endpoints:Private:Url=http://0.0.0.0:0"]);
        string url = $"http://127.0.0.1:{app.Private.BaseAddress!.Port}/suppressed/jane@example.com";
        await app.PostAsync(app.Sns.Bounce("jane@example.com"));
        Assert.Equal(200, await StatusAsync(app.Private, url, Authorization("Bearer", Key)));
    }
}
