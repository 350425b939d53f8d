using System.Net;
using System.Text;
using System.Text.Json.Nodes;

/// <summary>What POST /sns takes for an envelope, whatever its headers and its bytes are like.</summary>
public sealed class EnvelopeTests {
    static async Task<int> PostAsync(ReceiverApp app, HttpContent content) {
        using (content)
        using (var response = await app.Webhook.PostAsync("/sns", content, TestContext.Current.CancellationToken))
            return (int)response.StatusCode;
    }

    [Theory]
    [InlineData("nothing", "")]
    [InlineData("blanks", " \r\n")]
    [InlineData("text", "hello")]
    [InlineData("XML", "<xml/>")]
    [InlineData("half an object", """{"Type":"Notification",""")]
    [InlineData("null", "null")]
    [InlineData("an array", "[]")]
    [InlineData("an array of one envelope", "[{envelope}]")]
    [InlineData("a number", "1")]
    [InlineData("a string", "\"Notification\"")]
    [InlineData("an empty object", "{}")]
    [InlineData("the published message alone", """{"eventType":"Bounce","mail":{}}""")]
    [InlineData("two envelopes", "{envelope}{envelope}")]
    [InlineData("an envelope and garbage", "{envelope}x")]
    [InlineData("a comment", "/**/{envelope}")]
    [InlineData("a byte order mark", "\ufeff{envelope}")]
    public async Task A_body_that_is_not_one_JSON_object_is_no_envelope(string what, string body) {
        await using var app = await ReceiverApp.StartAsync();
        body = body.Replace("{envelope}", app.Sns.Signed("hello"));
        Assert.Equal((what, 400), (what, (await app.PostAsync(body)).Status));
        Assert.Empty(app.Sns.Requests);
    }

    [Theory]
    [InlineData("Notification", "Type")]
    [InlineData("Notification", "MessageId")]
    [InlineData("Notification", "TopicArn")]
    [InlineData("Notification", "Message")]
    [InlineData("Notification", "Timestamp")]
    [InlineData("Notification", "SignatureVersion")]
    [InlineData("Notification", "Signature")]
    [InlineData("Notification", "SigningCertURL")]
    [InlineData("SubscriptionConfirmation", "Token")]
    [InlineData("SubscriptionConfirmation", "SubscribeURL")]
    [InlineData("UnsubscribeConfirmation", "Token")]
    [InlineData("UnsubscribeConfirmation", "SubscribeURL")]
    public async Task A_field_that_is_missing_misspelled_or_no_string_is_no_envelope(string type, string field) {
        await using var app = await ReceiverApp.StartAsync();
        var genuine = type == "Notification" ? app.Sns.Notification("hello") : app.Sns.Confirmation(type);
        app.Sns.Sign(genuine);
        foreach (string value in (string[])["null", "1", "true", "{}", "[]", "[\"Notification\"]"]) {
            var envelope = genuine.DeepClone().AsObject();
            envelope[field] = JsonNode.Parse(value);
            Assert.Equal((value, 400), (value, (await app.PostAsync(envelope.ToJsonString())).Status));
        }
        genuine[field.ToLowerInvariant()] = genuine[field]!.DeepClone();
        genuine.Remove(field);
        Assert.Equal(400, (await app.PostAsync(genuine.ToJsonString())).Status);
        Assert.Empty(app.Sns.Requests);
    }

    [Theory]
    [InlineData("")]
    [InlineData("notification")]
    [InlineData("Notification ")]
    [InlineData("Notification\\n")]
    [InlineData("UnsubscriptionConfirmation")]
    public async Task An_unknown_Type_is_no_envelope(string type) {
        await using var app = await ReceiverApp.StartAsync();
        string body = app.Sns.Signed("hello").Replace("\"Type\":\"Notification\"", $"\"Type\":\"{type}\"");
        Assert.Equal((400, "Type is none that SNS posts"), await app.PostAsync(body));
    }

    [Theory]
    [InlineData("the same again", "\"Message\":\"hello\"")]
    [InlineData("another value", "\"Message\":\"other\"")]
    [InlineData("an escaped name", "\"\\u004dessage\":\"other\"")]
    [InlineData("of an optional field", "\"Subject\":\"other\"")]
    [InlineData("of what is not signed", "\"UnsubscribeURL\":\"https://evil.example/\"")]
    [InlineData("of what nobody knows", "\"AddedTomorrow\":1,\"AddedTomorrow\":2")]
    public async Task A_duplicate_member_is_no_envelope(string what, string member) {
        await using var app = await ReceiverApp.StartAsync();
        string signed = app.Sns.Signed("hello");
        Assert.Equal((what, 400), (what, (await app.PostAsync($"{{{member},{signed[1..]}")).Status));
        Assert.Equal((what, 400), (what, (await app.PostAsync($"{signed[..^1]},{member}}}")).Status));
        Assert.Empty(app.Sns.Requests);
    }

    [Theory]
    [InlineData("in Message", "hello", "FF")]
    [InlineData("half a character in Message", "hello", "C3")]
    [InlineData("an overlong NUL in Message", "hello", "C080")]
    [InlineData("half a surrogate pair in Message", "hello", "EDA080")]
    [InlineData("in UnsubscribeURL", "secret-unsubscribe", "FF")]
    [InlineData("in the name of a member", "UnsubscribeURL", "FF")]
    public async Task Bytes_that_are_not_UTF8_are_no_envelope(string where, string text, string bytes) {
        await using var app = await ReceiverApp.StartAsync();
        byte[] body = Encoding.UTF8.GetBytes(app.Sns.Signed("hello"));
        int at = body.AsSpan().IndexOf(Encoding.UTF8.GetBytes(text));
        body = [.. body[..at], .. Convert.FromHexString(bytes), .. body[(at + text.Length)..]];
        Assert.Equal((where, 400), (where, await PostAsync(app, new ByteArrayContent(body))));
    }

    [Theory]
    [InlineData("hello", @"\ud800")]
    [InlineData("hello", @"\ude00\ud83d")]
    [InlineData("Amazon SES Email Event Notification", @"\udc00")]
    [InlineData("\"UnsubscribeURL", @"""\ud800")]
    public async Task Half_a_surrogate_pair_is_no_envelope(string text, string half) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(400, (await app.PostAsync(app.Sns.Signed("hello").Replace(text, half))).Status);
    }

    [Theory]
    [InlineData("[", 100_000)]
    [InlineData("{\"a\":", 10_000)]
    public async Task Deep_nesting_is_no_envelope(string level, int levels) {
        await using var app = await ReceiverApp.StartAsync();
        string deep = string.Concat(Enumerable.Repeat(level, levels));
        Assert.Equal(400, (await app.PostAsync(deep)).Status);
        Assert.Equal(400, (await app.PostAsync("{\"MessageAttributes\":" + deep)).Status);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(deep))).Status);
    }

    [Theory]
    [InlineData("text/plain; charset=UTF-8")]
    [InlineData("text/plain; charset=utf-16")]
    [InlineData("application/json")]
    [InlineData("application/x-www-form-urlencoded")]
    [InlineData("multipart/form-data; boundary=x")]
    [InlineData("nonsense")]
    [InlineData("")]
    [InlineData(null)]
    public async Task The_content_type_is_never_looked_at(string? contentType) {
        await using var app = await ReceiverApp.StartAsync();
        var content = new ByteArrayContent(Encoding.UTF8.GetBytes(app.Sns.Bounce("jane@example.com")));
        if (contentType is not null) content.Headers.TryAddWithoutValidation("Content-Type", contentType);
        Assert.Equal(200, await PostAsync(app, content));
    }

    [Theory]
    [InlineData("x-amz-sns-message-type", "SubscriptionConfirmation")]
    [InlineData("x-amz-sns-topic-arn", "arn:aws:sns:us-east-1:999999999999:theirs")]
    [InlineData("x-amz-sns-message-id", "another")]
    [InlineData("x-amz-sns-rawdelivery", "true")]
    public async Task No_header_changes_what_a_message_is(string header, string value) {
        await using var app = await ReceiverApp.StartAsync();
        app.Webhook.DefaultRequestHeaders.Add(header, value);
        Assert.Equal((200, "kept"), await app.PostAsync(app.Sns.Bounce("jane@example.com")));
    }

    [Fact]
    public async Task Headers_as_SNS_sends_them_make_no_message_genuine() {
        await using var app = await ReceiverApp.StartAsync();
        app.Webhook.DefaultRequestHeaders.Add("x-amz-sns-topic-arn", FakeSns.TopicArn);
        app.Webhook.DefaultRequestHeaders.Add("User-Agent", "Amazon Simple Notification Service Agent");
        Assert.Equal(403, (await app.PostAsync(app.Sns.Signed("hello").Replace("hello", "forged"))).Status);
    }

    [Fact]
    public async Task GET_tells_what_this_URL_is() {
        await using var app = await ReceiverApp.StartAsync();
        string text = await app.Webhook.GetStringAsync("/sns", TestContext.Current.CancellationToken);
        Assert.Contains("aws sns subscribe", text);
    }

    [Theory]
    [InlineData("PUT")]
    [InlineData("DELETE")]
    [InlineData("PATCH")]
    [InlineData("OPTIONS")]
    public async Task Any_other_method_is_not_allowed(string method) {
        await using var app = await ReceiverApp.StartAsync();
        using var request = new HttpRequestMessage(new HttpMethod(method), "/sns");
        using var response = await app.Webhook.SendAsync(request, TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.MethodNotAllowed, response.StatusCode);
    }
}
