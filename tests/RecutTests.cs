using System.Text.Json.Nodes;

/// <summary>SNS escapes nothing in what it signs, so the same bytes can be cut into fields in more than one way. Who
/// may publish any text to any topic must gain nothing by it.</summary>
public sealed class RecutTests {
    const string Ours = FakeSns.TopicArn, Theirs = "arn:aws:sns:us-east-1:999999999999:theirs";
    const string At = "2026-11-24T08:00:00.123Z";

    /// <summary>What SNS signs for a Notification, written out.</summary>
    static string Signed(string message, string id, string timestamp, string topicArn, string? subject = null) =>
        $"Message\n{message}\nMessageId\n{id}\n" + (subject is null ? "" : $"Subject\n{subject}\n")
        + $"Timestamp\n{timestamp}\nTopicArn\n{topicArn}\nType\nNotification\n";

    /// <summary>An envelope of these fields under the signature of that text.</summary>
    static JsonObject Cut(FakeSns sns, string signed, string id, string timestamp = At, string arn = Ours) => new() {
        ["Type"] = "Notification",
        ["Message"] = "hello",
        ["MessageId"] = id,
        ["Timestamp"] = timestamp,
        ["TopicArn"] = arn,
        ["SignatureVersion"] = "2",
        ["SigningCertURL"] = sns.CertUrl,
        ["Signature"] = sns.Signature(signed, "2"),
    };

    [Fact]
    public async Task A_Notification_of_a_strangers_topic_cannot_be_cut_into_a_confirmation_of_ours() {
        await using var app = await ReceiverApp.StartAsync();
        const string Confirmation = "hello\nMessageId\n2\nSubscribeURL\nhttps://evil.example/\n"
            + $"Timestamp\n{At}\nToken\ntheir-token\nTopicArn\n{Ours}\nType\nSubscriptionConfirmation";
        const string Rest = $"\nMessageId\n1\nTimestamp\n{At}\nTopicArn\n{Theirs}\nType\nNotification";
        string signed = Signed(Confirmation, "1", At, Theirs);
        Assert.Equal($"Message\n{Confirmation}{Rest}\n", signed);

        var cut = Cut(app.Sns, signed, "2");
        (cut["SubscribeURL"], cut["Token"]) = ("https://evil.example/", "their-token");
        cut["Type"] = "SubscriptionConfirmation" + Rest;
        Assert.Equal(400, (await app.PostAsync(cut.ToJsonString())).Status);
        cut["Type"] = "SubscriptionConfirmation";
        Assert.Equal(403, (await app.PostAsync(cut.ToJsonString())).Status);
        Assert.Equal([app.Sns.CertUrl], app.Sns.Requests);
    }

    [Fact]
    public async Task A_Notification_of_a_strangers_topic_cannot_be_cut_into_one_of_ours() {
        await using var app = await ReceiverApp.StartAsync();
        string signed = Signed($"hello\nMessageId\n2\nTimestamp\n{At}\nTopicArn\n{Ours}", "1", At, Theirs);
        string topicArn = $"{Ours}\nMessageId\n1\nTimestamp\n{At}\nTopicArn\n{Theirs}";
        Assert.Equal(signed, Signed("hello", "2", At, topicArn));
        Assert.Equal(400, (await app.PostAsync(Cut(app.Sns, signed, "2", arn: topicArn).ToJsonString())).Status);
        Assert.Empty(app.Sns.Requests);
    }

    // In our own topic a stranger's words stand too: bounces quote what the far side said.
    [Fact]
    public async Task The_end_of_a_Message_cannot_be_cut_into_another_MessageId() {
        await using var app = await ReceiverApp.StartAsync();
        string signed = Signed("hello\nMessageId\n2", "1", At, Ours), id = "2\nMessageId\n1";
        Assert.Equal(signed, Signed("hello", id, At, Ours));
        Assert.Equal(400, (await app.PostAsync(Cut(app.Sns, signed, id).ToJsonString())).Status);
        Assert.Empty(app.Sns.Requests);
    }

    [Fact]
    public async Task The_end_of_a_Message_cannot_be_cut_into_another_Subject() {
        await using var app = await ReceiverApp.StartAsync();
        string signed = Signed("hello\nMessageId\n2\nSubject\nours", "1", At, Ours), subject = "ours\nMessageId\n1";
        Assert.Equal(signed, Signed("hello", "2", At, Ours, subject));

        var cut = Cut(app.Sns, signed, "2");
        cut["Subject"] = subject;
        Assert.Equal(400, (await app.PostAsync(cut.ToJsonString())).Status);
        Assert.Empty(app.Sns.Requests);
    }

    [Fact]
    public async Task The_end_of_a_Message_cannot_be_cut_into_another_Timestamp() {
        await using var app = await ReceiverApp.StartAsync();
        string signed = Signed("hello\nMessageId\n2\nTimestamp\n2020-01-02T00:00:00.000Z", "1", At, Ours);
        string timestamp = $"2020-01-02T00:00:00.000Z\nMessageId\n1\nTimestamp\n{At}";
        Assert.Equal(signed, Signed("hello", "2", timestamp, Ours));
        Assert.Equal(400, (await app.PostAsync(Cut(app.Sns, signed, "2", timestamp).ToJsonString())).Status);
        Assert.Empty(app.Sns.Requests);
    }

    [Fact]
    public async Task A_Notification_with_a_Token_and_a_SubscribeURL_stays_a_Notification() {
        await using var app = await ReceiverApp.StartAsync();
        var envelope = app.Sns.Notification("hello");
        app.Sns.Sign(envelope);
        (envelope["Token"], envelope["SubscribeURL"]) = ("their-token", "https://evil.example/");
        Assert.Equal(200, (await app.PostAsync(envelope.ToJsonString())).Status);
        Assert.Equal([app.Sns.CertUrl], app.Sns.Requests);
    }
}
