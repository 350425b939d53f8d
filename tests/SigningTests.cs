using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

/// <summary>What SNS signs, and that nothing else passes for it.</summary>
public sealed class SigningTests {
    const string SecondTopic = FakeSns.TopicArn + "-2", AtNoon = "2026-11-24T12:00:00.000Z";
    static readonly JsonSerializerOptions s_unescaped = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    static JsonObject Unsigned(FakeSns sns, string type, string version) =>
        type == "Notification" ? sns.Notification("hello", version: version) : sns.Confirmation(type, version);

    [Theory]
    [InlineData("Notification", "1")]
    [InlineData("Notification", "2")]
    [InlineData("SubscriptionConfirmation", "1")]
    [InlineData("SubscriptionConfirmation", "2")]
    [InlineData("UnsubscribeConfirmation", "1")]
    [InlineData("UnsubscribeConfirmation", "2")]
    public async Task A_message_as_SNS_signed_it_is_accepted(string type, string version) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(200, (await app.PostAsync(app.Sns.Sign(Unsigned(app.Sns, type, version)))).Status);
    }

    // TopicArn is changed to one that is allowed too, so that the signature alone can tell.
    [Theory]
    [InlineData("Notification", "Message", "changed", 403)]
    [InlineData("Notification", "MessageId", "changed", 403)]
    [InlineData("Notification", "Subject", "changed", 403)]
    [InlineData("Notification", "Subject", null, 403)]
    [InlineData("Notification", "Timestamp", AtNoon, 403)]
    [InlineData("Notification", "Timestamp", "changed", 400)]
    [InlineData("Notification", "TopicArn", SecondTopic, 403)]
    [InlineData("Notification", "Type", "SubscriptionConfirmation", 400)]
    [InlineData("SubscriptionConfirmation", "Message", "changed", 403)]
    [InlineData("SubscriptionConfirmation", "MessageId", "changed", 403)]
    [InlineData("SubscriptionConfirmation", "SubscribeURL", "changed", 403)]
    [InlineData("SubscriptionConfirmation", "Timestamp", AtNoon, 403)]
    [InlineData("SubscriptionConfirmation", "Token", "changed", 403)]
    [InlineData("SubscriptionConfirmation", "TopicArn", SecondTopic, 403)]
    [InlineData("SubscriptionConfirmation", "Type", "UnsubscribeConfirmation", 403)]
    [InlineData("SubscriptionConfirmation", "Type", "Notification", 403)]
    [InlineData("UnsubscribeConfirmation", "Message", "changed", 403)]
    [InlineData("UnsubscribeConfirmation", "MessageId", "changed", 403)]
    [InlineData("UnsubscribeConfirmation", "SubscribeURL", "changed", 403)]
    [InlineData("UnsubscribeConfirmation", "Timestamp", AtNoon, 403)]
    [InlineData("UnsubscribeConfirmation", "Token", "changed", 403)]
    [InlineData("UnsubscribeConfirmation", "TopicArn", SecondTopic, 403)]
    [InlineData("UnsubscribeConfirmation", "Type", "SubscriptionConfirmation", 403)]
    public async Task A_field_changed_after_signing_is_refused(string type, string field, string? value, int status) {
        await using var app = await ReceiverApp.StartAsync(["Sns:TopicArns:1=" + SecondTopic]);
        foreach (string version in (string[])["1", "2"]) {
            var envelope = Unsigned(app.Sns, type, version);
            app.Sns.Sign(envelope);
            envelope[field] = value;
            Assert.Equal(status, (await app.PostAsync(envelope.ToJsonString())).Status);
        }
        Assert.DoesNotContain(app.Sns.Requests, url => url.Contains("ConfirmSubscription"));
    }

    [Theory]
    [InlineData("absent")]
    [InlineData("null")]
    [InlineData("\"\"")]
    [InlineData("\"Your offers\"")]
    public async Task A_Subject_is_signed_when_it_is_there_and_only_then(string subject) {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("hello");
        if (subject == "absent") envelope.Remove("Subject");
        else envelope["Subject"] = JsonNode.Parse(subject);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Sign(envelope))).Status);
    }

    [Fact]
    public async Task A_Subject_added_to_a_message_signed_without_one_is_refused() {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("hello", subject: null);
        app.Sns.Sign(envelope);
        envelope["Subject"] = "";
        Assert.Equal(403, (await app.PostAsync(envelope.ToJsonString())).Status);
    }

    [Theory]
    [InlineData("2026-11-24T08:00:00.000Z")]
    [InlineData("2026-11-24T08:00:00Z")]
    [InlineData("2026-11-24T08:00:00.120Z")]
    public async Task A_Timestamp_is_signed_as_it_was_written(string timestamp) {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("hello");
        envelope["Timestamp"] = timestamp;
        Assert.Equal(200, (await app.PostAsync(app.Sns.Sign(envelope))).Status);
        envelope["Timestamp"] = timestamp.Replace("Z", "+00:00");
        Assert.Equal(403, (await app.PostAsync(envelope.ToJsonString())).Status);
    }

    [Theory]
    [InlineData("")]
    [InlineData("\n")]
    [InlineData("ends in a newline\n")]
    [InlineData("\r\nlines as\r\nWindows writes them\r\n")]
    [InlineData("\ud83d\ude00 \u00e9 e\u0301 \u2028 \ufeff")]
    [InlineData("\"quotes\" 'and' \\ and / and <b>&amp;</b>")]
    [InlineData("a tab\t, a NUL \0, a bell \a and a DEL \x7f")]
    [InlineData("Subject\nthat is none\nType\nNotification")]
    public async Task A_Message_is_signed_as_text_however_JSON_spells_it(string message) {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification(message);
        string signed = app.Sns.Sign(envelope), allEscaped = string.Concat(message.Select(c => $@"\u{(int)c:x4}"));
        string escaped = signed.Replace(
            $"\"Message\":{JsonSerializer.Serialize(message)}", $"\"Message\":\"{allEscaped}\"");
        Assert.Equal(200, (await app.PostAsync(signed)).Status);
        Assert.Equal(200, (await app.PostAsync(envelope.ToJsonString(s_unescaped))).Status);
        Assert.Equal(200, (await app.PostAsync(escaped)).Status);
    }

    [Theory]
    [InlineData("UnsubscribeURL", "\"https://evil.example/\"")]
    [InlineData("UnsubscribeURL", "null")]
    [InlineData("MessageAttributes", """{"AnyName":{"Type":"String","Value":"any\nvalue"}}""")]
    [InlineData("SequenceNumber", "1")]
    [InlineData("AddedTomorrow", "[1,{\"a\":null}]")]
    [InlineData("message", "\"of another case\"")]
    public async Task What_is_not_signed_may_change(string member, string value) {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("hello");
        app.Sns.Sign(envelope);
        envelope[member] = JsonNode.Parse(value);
        Assert.Equal(200, (await app.PostAsync(envelope.ToJsonString())).Status);
    }

    [Theory]
    [InlineData("")]
    [InlineData("=")]
    [InlineData("not base64")]
    [InlineData("AAAA")]
    [InlineData("{genuine}AAAA")]
    [InlineData("AAAA{genuine}")]
    [InlineData("{genuine}{genuine}")]
    [InlineData("{half}")]
    [InlineData("{1 MB}")]
    [InlineData("{genuine}{blanks}")]
    public async Task A_signature_that_cannot_be_one_is_refused(string signature) {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("hello");
        app.Sns.Sign(envelope);
        string genuine = envelope["Signature"]!.GetValue<string>();
        envelope["Signature"] = signature.Replace("{genuine}", genuine).Replace("{half}", genuine[..172])
            .Replace("{1 MB}", new string('A', 1_000_000)).Replace("{blanks}", new string(' ', 100_000));
        Assert.Equal(403, (await app.PostAsync(envelope.ToJsonString())).Status);
    }

    [Theory]
    [InlineData("3")]
    [InlineData("0")]
    [InlineData("")]
    [InlineData(" 2")]
    [InlineData("02")]
    [InlineData("\uff12")]
    public async Task A_SignatureVersion_other_than_1_and_2_is_refused(string version) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(403, (await app.PostAsync(app.Sns.Signed("hello", version))).Status);
    }

    [Theory]
    [InlineData("1", 403)]
    [InlineData("2", 200)]
    public async Task A_minimum_of_2_refuses_SHA1(string version, int status) {
        await using var app = await ReceiverApp.StartAsync(["Sns:MinimumSignatureVersion=2"]);
        Assert.Equal(status, (await app.PostAsync(app.Sns.Signed("hello", version))).Status);
    }

    [Theory]
    [InlineData("1", "2")]
    [InlineData("2", "1")]
    public async Task A_signature_of_one_version_does_not_pass_for_the_other(string signedAs, string sentAs) {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("hello", version: signedAs);
        app.Sns.Sign(envelope);
        envelope["SignatureVersion"] = sentAs;
        Assert.Equal(403, (await app.PostAsync(envelope.ToJsonString())).Status);
    }

    [Theory]
    [InlineData("Notification", "MessageId")]
    [InlineData("Notification", "Subject")]
    [InlineData("Notification", "Timestamp")]
    [InlineData("Notification", "TopicArn")]
    [InlineData("SubscriptionConfirmation", "MessageId")]
    [InlineData("SubscriptionConfirmation", "SubscribeURL")]
    [InlineData("SubscriptionConfirmation", "Timestamp")]
    [InlineData("SubscriptionConfirmation", "Token")]
    [InlineData("SubscriptionConfirmation", "TopicArn")]
    [InlineData("UnsubscribeConfirmation", "SubscribeURL")]
    [InlineData("UnsubscribeConfirmation", "Token")]
    public async Task A_control_character_in_any_signed_field_but_Message_is_no_envelope(string type, string field) {
        await using var app = await ReceiverApp.StartAsync();
        foreach (char control in "\n\r\0\t\x1f") {
            var envelope = Unsigned(app.Sns, type, "2");
            envelope[field] = envelope[field]!.GetValue<string>() + control;
            Assert.Equal((400, "control character in a signed field other than Message"),
                await app.PostAsync(app.Sns.Sign(envelope)));
        }
        Assert.Empty(app.Sns.Requests);
    }
}
