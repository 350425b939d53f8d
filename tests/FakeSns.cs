using System.Collections.Concurrent;
using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

/// <summary>An SNS with a key that is not Amazon's. It signs envelopes, serves its certificate and confirms subscriptions, as the
/// handler of the receiver's HttpClient. The canonical text is written out here, and not by the receiver's own code.</summary>
sealed class FakeSns : HttpMessageHandler {
    public const string TopicArn = "arn:aws:sns:us-east-1:123456789012:email-feedback";
    // To make a key takes longer than most tests do, so whoever needs none of their own has this one.
    static readonly RSAParameters Ours = RSA.Create(2048).ExportParameters(includePrivateParameters: true);
    readonly RSA _rsa;
    int _messages;

    public FakeSns() : this(RSA.Create(Ours)) { }
    /// <summary>One that nobody else has, as a stranger's.</summary>
    public FakeSns(int keySize) : this(RSA.Create(keySize)) { }
    FakeSns(RSA rsa) {
        _rsa = rsa;
        Pem = PemOf(_rsa, new(2020, 1, 1, 0, 0, 0, TimeSpan.Zero), new(2040, 1, 1, 0, 0, 0, TimeSpan.Zero));
        Answer = DefaultAnswerAsync;
    }

    public string Name { get; } = $"SimpleNotificationService-{Guid.NewGuid():N}.pem";
    public string CertUrl => "https://sns.us-east-1.amazonaws.com/" + Name;
    public string Pem { get; set; }

    /// <summary>Where a receiver in the folder finds it, which has nobody to ask.</summary>
    public void WriteCertificate(string folder) =>
        File.WriteAllText(Path.Combine(Directory.CreateDirectory(Path.Combine(folder, "certificates")).FullName, Name), Pem);

    /// <summary>Every URL that the receiver asked for.</summary>
    public ConcurrentQueue<string> Requests { get; } = [];

    /// <summary>Tests replace it to be slow, broken or hostile.</summary>
    public Func<HttpRequestMessage, CancellationToken, Task<HttpResponseMessage>> Answer { get; set; }

    public static string PemOf(RSA key, DateTimeOffset from, DateTimeOffset until) {
        var request = new CertificateRequest("CN=sns.fake.test", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        using var certificate = request.CreateSelfSigned(from, until);
        return certificate.ExportCertificatePem();
    }

    public Task<HttpResponseMessage> DefaultAnswerAsync(HttpRequestMessage request, CancellationToken cancellation) =>
        Task.FromResult(new HttpResponseMessage(HttpStatusCode.OK) {
            Content = new StringContent(request.RequestUri!.AbsolutePath == "/" ? "<ConfirmSubscriptionResponse/>" : Pem),
        });

    protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken) {
        Requests.Enqueue(request.RequestUri!.OriginalString);
        return Answer(request, cancellationToken);
    }

    string NextId() => $"00000000-0000-4000-8000-{Interlocked.Increment(ref _messages):x12}";

    /// <summary>An unsigned Notification; tests change it before or after <see cref="Sign"/>.</summary>
    public JsonObject Notification(string message, string? subject = "Amazon SES Email Event Notification", string version = "2") => new() {
        ["Type"] = "Notification", ["MessageId"] = NextId(), ["TopicArn"] = TopicArn, ["Subject"] = subject, ["Message"] = message,
        ["Timestamp"] = "2026-11-24T08:00:00.123Z", ["SignatureVersion"] = version, ["SigningCertURL"] = CertUrl,
        ["UnsubscribeURL"] = "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=secret-unsubscribe",
    };

    public JsonObject Confirmation(string type = "SubscriptionConfirmation", string version = "2") => new() {
        ["Type"] = type, ["MessageId"] = NextId(), ["Token"] = "secret-token", ["TopicArn"] = TopicArn,
        ["Message"] = "You have chosen to subscribe.\nTo confirm, visit the SubscribeURL.",
        ["SubscribeURL"] = "https://evil.example/secret-subscribe-url", ["Timestamp"] = "2026-11-24T08:00:00.123Z",
        ["SignatureVersion"] = version, ["SigningCertURL"] = CertUrl,
    };

    /// <summary>Signs what stands in the envelope now, in the order that AWS documents, and returns the body to post.</summary>
    public string Sign(JsonObject envelope) {
        string Line(string name) => envelope[name] is { } value ? $"{name}\n{value.GetValue<string>()}\n" : "";
        string canonical = envelope["Type"]!.GetValue<string>() == "Notification"
            ? Line("Message") + Line("MessageId") + Line("Subject") + Line("Timestamp") + Line("TopicArn") + Line("Type")
            : Line("Message") + Line("MessageId") + Line("SubscribeURL") + Line("Timestamp") + Line("Token") + Line("TopicArn") + Line("Type");
        envelope["Signature"] = Signature(canonical, envelope["SignatureVersion"]!.GetValue<string>());
        return envelope.ToJsonString();
    }

    public string Signature(string canonical, string version) {
        var hash = version == "1" ? HashAlgorithmName.SHA1 : HashAlgorithmName.SHA256;
        lock (_rsa) return Convert.ToBase64String(_rsa.SignData(Encoding.UTF8.GetBytes(canonical), hash, RSASignaturePadding.Pkcs1));
    }

    /// <summary>A signed Notification with this text in Message.</summary>
    public string Signed(string message, string version = "2") => Sign(Notification(message, version: version));

    /// <summary>A signed permanent bounce, in event publishing's format.</summary>
    public string Bounce(string address, string mailId = "0100019a00000000-mail", string type = "Permanent", string subType = "General",
        string at = "2026-11-24T07:00:00.000Z") => Signed(SesBounce([address], mailId, type, subType, at));

    public static string SesBounce(string[] addresses, string mailId = "0100019a00000000-mail", string type = "Permanent",
        string subType = "General", string at = "2026-11-24T07:00:00.000Z", string format = "eventType") => Ses(format, "Bounce", mailId, addresses, $$"""
        "bounce":{"bounceType":"{{type}}","bounceSubType":"{{subType}}","bouncedRecipients":[{{Recipients(addresses)}}],"timestamp":"{{at}}","feedbackId":"feedback-{{format}}"}
        """);

    public static string SesComplaint(string[] addresses, string mailId = "0100019a00000000-mail", string? type = "abuse",
        string at = "2026-11-24T07:00:00.000Z") => Ses("eventType", "Complaint", mailId, addresses, $$"""
        "complaint":{"complaintFeedbackType":{{JsonSerializer.Serialize(type)}},"complaintSubType":null,"complainedRecipients":[{{Recipients(addresses)}}],"timestamp":"{{at}}","feedbackId":"feedback-c"}
        """);

    public static string SesDelivery(string address, string mailId = "0100019a00000000-mail", string at = "2026-11-24T07:00:00.000Z") =>
        Ses("eventType", "Delivery", mailId, [address], $$"""
        "delivery":{"timestamp":"{{at}}","recipients":["{{address}}"],"smtpResponse":"250 2.0.0 OK"}
        """);

    static string Recipients(string[] addresses) => string.Join(",", addresses.Select(address =>
        $$"""{"emailAddress":{{JsonSerializer.Serialize(address)}},"action":"failed","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 user unknown"}"""));

    static string Ses(string format, string kind, string mailId, string[] destination, string body) => $$$"""
        {"{{{format}}}":"{{{kind}}}",{{{body}}},"mail":{"timestamp":"2026-11-24T06:59:00.000Z","messageId":"{{{mailId}}}","source":"news@shop.example.com","destination":{{{JsonSerializer.Serialize(destination)}}},"commonHeaders":{"subject":"Your offers"}{{{(format == "eventType" ? Tags : "")}}} } }
        """;
    // Identity notifications have none.
    const string Tags = ""","tags":{"ses:configuration-set":["shop"],"campaign":["november"]}""";
}
