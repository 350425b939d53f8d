// Makes what the load run feeds on, in a folder: envelopes.ndjson (signed SNS Notifications with SES events, one a line), the
// certificate that they verify against, addresses.txt, and journal/ with so many suppressions, as a receiver would have written it.
//   dotnet run --file tests/load/feed.cs -- <folder> <envelopes> <suppressions>
#:property PublishAot=false
#:property EnforceCodeStyleInBuild=false
#:property RestorePackagesWithLockFile=false
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

const string Topic = "arn:aws:sns:us-east-1:123456789012:email-feedback", Subject = "Amazon SES Email Event Notification";
var (folder, envelopes, suppressions) = (args[0], int.Parse(args[1]), int.Parse(args[2]));
Directory.CreateDirectory(Path.Combine(folder, "journal"));
using var rsa = RSA.Create(2048);
var request = new CertificateRequest("CN=load.example", rsa, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
using var certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddYears(-1), DateTimeOffset.UtcNow.AddYears(1));
string pem = $"SimpleNotificationService-{Guid.NewGuid():N}.pem", run = Guid.NewGuid().ToString("N")[..8];
File.WriteAllText(Path.Combine(folder, pem), certificate.ExportCertificatePem());
var asSent = new JsonSerializerOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
string Json(string text) => JsonSerializer.Serialize(text, asSent);

// Twelve bounces, three complaints and five deliveries of every twenty, each with the headers and tags that SES sends.
string Event(int i, string address, string stamp, long at)
{
    string body = (i % 20) switch
    {
        < 12 => $$"""
            "eventType":"Bounce","bounce":{"feedbackId":"feedback-{{run}}-{{i}}","bounceType":"{{(i % 5 == 0 ? "Transient" : "Permanent")}}","bounceSubType":"{{(i % 5 == 0 ? "MailboxFull" : "General")}}","bouncedRecipients":[{"emailAddress":"{{address}}","action":"failed","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 user unknown"}],"timestamp":"{{stamp}}","reportingMTA":"dns; a8-62.smtp-out.amazonses.com"}
            """,
        < 15 => $$"""
            "eventType":"Complaint","complaint":{"feedbackId":"feedback-{{run}}-{{i}}","complaintSubType":null,"complaintFeedbackType":"abuse","userAgent":"Feedback-Loop/1.0","complainedRecipients":[{"emailAddress":"{{address}}"}],"timestamp":"{{stamp}}","arrivalDate":"{{stamp}}"}
            """,
        _ => $$"""
            "eventType":"Delivery","delivery":{"timestamp":"{{stamp}}","processingTimeMillis":812,"recipients":["{{address}}"],"smtpResponse":"250 2.0.0 OK","reportingMTA":"a8-62.smtp-out.amazonses.com"}
            """,
    };
    string mailId = $"0100{at:x12}-{run}-9b91-4ba1-8e77-{i:x12}-000000";
    return $$"""
        {{{body.Trim()}},"mail":{"timestamp":"{{stamp}}","source":"\"Shop\" <news@shop.example>","sourceArn":"arn:aws:ses:us-east-1:123456789012:identity/shop.example","sendingAccountId":"123456789012","messageId":"{{mailId}}","destination":["{{address}}"],"headersTruncated":false,"headers":[{"name":"From","value":"\"Shop\" <news@shop.example>"},{"name":"To","value":"{{address}}"},{"name":"Subject","value":"Offer {{i % 50}}"},{"name":"MIME-Version","value":"1.0"},{"name":"Content-Type","value":"multipart/alternative; boundary=\"----=_Part_7307378_1629847660.1516840721503\""}],"commonHeaders":{"from":["\"Shop\" <news@shop.example>"],"to":["{{address}}"],"messageId":"{{mailId}}","subject":"Offer {{i % 50}}"},"tags":{"ses:operation":["SendEmail"],"ses:configuration-set":["shop"],"ses:source-ip":["192.0.2.10"],"ses:from-domain":["shop.example"],"ses:caller-identity":["mailer"],"campaign":["c{{i % 10}}"] } } }

        """;
}

string[] domains = ["example.com", "example.org", "example.net", "mail.example.com", "mail.example.org", "mail.example.net"];
string[] lines = new string[envelopes], addresses = new string[envelopes];
Parallel.For(0, envelopes, () => RSA.Create(rsa.ExportParameters(true)), (i, _, key) =>
{
    var at = DateTimeOffset.UtcNow.AddMinutes(-(i % 40000));
    string address = addresses[i] = $"user{run}{i}@{domains[i % domains.Length]}", stamp = at.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'");
    string message = Event(i, address, stamp, at.ToUnixTimeMilliseconds()), id = Guid.NewGuid().ToString();
    byte[] canonical = Encoding.UTF8.GetBytes(
        $"Message\n{message}\nMessageId\n{id}\nSubject\n{Subject}\nTimestamp\n{stamp}\nTopicArn\n{Topic}\nType\nNotification\n");
    string signature = Convert.ToBase64String(key.SignData(canonical, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1));
    lines[i] = $$"""
        {"Type":"Notification","MessageId":"{{id}}","TopicArn":"{{Topic}}","Subject":"{{Subject}}","Message":{{Json(message)}},"Timestamp":"{{stamp}}","SignatureVersion":"2","Signature":"{{signature}}","SigningCertURL":"https://sns.us-east-1.amazonaws.com/{{pem}}","UnsubscribeURL":"https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={{Topic}}:0"}
        """;
    return key;
}, key => key.Dispose());
File.WriteAllLines(Path.Combine(folder, "envelopes.ndjson"), lines);
File.WriteAllLines(Path.Combine(folder, "addresses.txt"), addresses);

using var journal = new StreamWriter(Path.Combine(folder, "journal", "00000001.ndjson")) { NewLine = "\n" };
for (int i = 0; i < suppressions; i++)
    journal.WriteLine($$"""{"at":"2026-01-01T00:00:00Z","suppress":{"address":"known{{i}}@example.com","reason":"manual"} }""");
