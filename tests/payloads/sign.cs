#:property PublishAot=false
#:property RestorePackagesWithLockFile=false
#:property EnforceCodeStyleInBuild=false
// Signs an envelope you have edited with a key of your own, which only your Development receiver trusts:
//   dotnet run --file tests/payloads/sign.cs -- [--v1] [--new-id] FILE | curl --data-binary @- localhost:8080/sns
using System.Globalization;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

try
{
    if (args.Where(arg => arg is not ("--v1" or "--new-id")).ToArray() is not [var path] || path.StartsWith("--", StringComparison.Ordinal))
        throw new FormatException("usage: sign.cs [--v1] [--new-id] FILE   (- is standard input)");
    using var input = new StreamReader(path == "-" ? Console.OpenStandardInput() : File.OpenRead(path));
    var envelope = JsonNode.Parse(input.ReadToEnd(), documentOptions: new() { AllowDuplicateProperties = false }) as JsonObject
        ?? throw new FormatException("this is not a JSON object");
    if (args.Contains("--new-id"))
        (envelope["MessageId"], envelope["Timestamp"]) = (Guid.NewGuid().ToString(), DateTime.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture));
    var canonical = string.Concat(SignedFields(envelope).Select(name => $"{name}\n{Text(envelope, name)}\n"));
    if (Text(envelope, "TopicArn").Split(':') is not ["arn", _, "sns", var region, _, _]) throw new FormatException("TopicArn is not the ARN of a topic");

    var folder = (string?)AppContext.GetData("EntryPointFileDirectoryPath") ?? throw new InvalidOperationException("start this with dotnet run --file");
    using var key = LocalKey(Path.Combine(folder, "local-key.pem"));
    var (version, hash) = args.Contains("--v1") ? ("1", HashAlgorithmName.SHA1) : ("2", HashAlgorithmName.SHA256);
    envelope["SignatureVersion"] = version;
    envelope["Signature"] = Convert.ToBase64String(key.SignData(Encoding.UTF8.GetBytes(canonical), hash, RSASignaturePadding.Pkcs1));
    envelope["SigningCertURL"] = $"https://sns.{region}.amazonaws.com/{CertificateOf(key, folder)}";
    using var output = Console.OpenStandardOutput();
    using (var json = new Utf8JsonWriter(output, new() { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping })) envelope.WriteTo(json);
    output.WriteByte((byte)'\n');
    return 0;
}
catch (Exception e) when (e is FormatException or JsonException or IOException or UnauthorizedAccessException or CryptographicException or ArgumentException or InvalidOperationException)
{
    Console.Error.WriteLine($"sign: {e.Message}");
    return 1;
}

static string[] SignedFields(JsonObject envelope) => Text(envelope, "Type") switch
{
    "Notification" when envelope["Subject"] is null => ["Message", "MessageId", "Timestamp", "TopicArn", "Type"],
    "Notification" => ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
    "SubscriptionConfirmation" or "UnsubscribeConfirmation" => ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
    var other => throw new FormatException($"Type is \"{other}\", not Notification, SubscriptionConfirmation or UnsubscribeConfirmation"),
};

static string Text(JsonObject envelope, string name) =>
    envelope[name] is JsonValue value && value.TryGetValue(out string? text) ? text : throw new FormatException($"{name} is missing or not a string");

static RSA LocalKey(string path)
{
    var key = RSA.Create(2048);
    if (File.Exists(path)) { key.ImportFromPem(File.ReadAllText(path)); return key; }
    var create = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
    if (!OperatingSystem.IsWindows()) create.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    using var file = new StreamWriter(path, create);
    file.WriteLine(key.ExportPkcs8PrivateKeyPem());
    return key;
}

// Valid for long: the receiver wants a certificate that was valid at the message's Timestamp, which you may have set to anything.
static string CertificateOf(RSA key, string folder)
{
    var name = $"SimpleNotificationService-{Convert.ToHexStringLower(SHA256.HashData(key.ExportSubjectPublicKeyInfo()))[..32]}.pem";
    var request = new CertificateRequest("CN=sns.example.local-key", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
    using var certificate = request.CreateSelfSigned(new(2000, 1, 1, 0, 0, 0, TimeSpan.Zero), new(2046, 1, 1, 0, 0, 0, TimeSpan.Zero));
    if (!File.Exists(Path.Combine(folder, name))) File.WriteAllText(Path.Combine(folder, name), certificate.ExportCertificatePem() + "\n");
    return name;
}
