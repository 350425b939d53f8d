// Plays SES and SNS on a development machine: signed events about people who do not exist, for the receiver that runs beside it.
//   FeedbackReceiver simulate complaint jane@example.com  |  simulate day  |  simulate sign FILE  |  replay FILE...
//
// Its key is made at first use and lies in Sns:CertificateDirectory for its owner alone; the certificate beside it is trusted as
// any pem there is. Who can write into that folder could always do this, and nobody else gains anything.

static partial class Extras {
    static partial void RunSimulator(string[] args, ref Task<int>? command) {
        if (args is ["simulate" or "replay", ..]) command = Simulator.RunAsync(args);
    }
}

/// <summary>The commands `simulate` (Development only, for it signs) and `replay` (which signs nothing). Exit code 0: all was answered
/// with 200.</summary>
sealed class Simulator {
    const int AtOnce = 48;
    const string Usage = """
        usage: simulate bounce|soft|complaint|not-spam|delivery|ooto|unsubscribe <address> [--v1] [--identity-format] [--times N]
               simulate confirm | day [--v1]
               simulate sign FILE [--v1] [--new-id]      prints the envelope, signed; - is standard input
               replay FILE...                            envelopes, one a file or one a line, or journals; - is standard input
        All but sign post to /sns of this folder's receiver, or to --url http://...
        """;
    static readonly Refusal Misused = new(Usage);
    readonly HttpClient _http = SnsClient.CreateHttp();
    readonly ConcurrentDictionary<string, int> _answers = new();
    readonly Stopwatch _watch = Stopwatch.StartNew();
    readonly Uri _target;
    int _posted, _told;

    Simulator(Uri target) => _target = target;

    public static async Task<int> RunAsync(string[] args) {
        List<string> words = [.. args], settings = words.FindAll(word => word.StartsWith("--", Ordinal) && word.Contains('='));
        words.RemoveAll(settings.Contains);
        bool v1 = words.Remove("--v1"), identity = words.Remove("--identity-format"), newId = words.Remove("--new-id");
        string? url = Value(words, "--url"), times = Value(words, "--times");
        // Each command takes its own options, and no other.
        if (words.Exists(word => word.StartsWith("--", Ordinal)) || (newId && words is not [_, "sign", ..])
            || (v1 && words is ["replay", ..]) || ((identity || times is not null) && words is not ["simulate", _, _])) throw Misused;
        var builder = WebApplication.CreateSlimBuilder([.. settings]);
        ReceiverOptions.AddTo(builder);
        if (words[0] == "simulate" && !builder.Environment.IsDevelopment())
            throw new Refusal("simulate signs events of its own: in Development only, and this is " + builder.Environment.EnvironmentName);
        await using var app = builder.Build();
        var options = app.Services.GetRequiredService<IOptions<ReceiverOptions>>().Value;
        var simulator = new Simulator(Target(url ?? builder.Configuration["Kestrel:Endpoints:Webhook:Url"] ?? ""));
        if (words is ["replay", _, ..]) return await simulator.ReplayAsync(words[1..]);
        var sns = new SimulatedSns(options, v1);
        return words switch {
            ["simulate", "sign", var file] => await sns.PrintAsync(file, newId),
            ["simulate", "day"] => await simulator.DayAsync(sns, DateTimeOffset.UtcNow),
            ["simulate", "confirm"] => await simulator.ConfirmAsync(sns),
            ["simulate", var kind, var address] when SimulatedMail.Kinds.Contains(kind) && !(identity && kind == "unsubscribe") =>
                await simulator.PostAsync(sns, kind, address, identity, Times(times)),
            _ => throw Misused,
        };
    }
    static string? Value(List<string> words, string name) {
        if (words.IndexOf(name) is var at && at < 0) return null;
        string value = at + 1 < words.Count ? words[at + 1] : throw Misused;
        words.RemoveRange(at, 2);
        return value;
    }
    static int Times(string? times) => times is null ? 1
        : int.TryParse(times, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number is >= 1 and <= 100_000 ? number
        : throw new Refusal("--times takes a number from 1 to 100000");
    // Where one listens on every address, it is asked by the name localhost.
    static Uri Target(string url) {
        foreach (string all in (string[])["//*", "//+", "//0.0.0.0", "//[::]"]) url = url.Replace(all, "//localhost", Ordinal);
        return Uri.TryCreate(url, UriKind.Absolute, out var at) && at is { Scheme: "http" or "https", Port: > 0 } && at.Host.Length > 0
            ? at.AbsolutePath == "/" ? new(at, "/sns") : at
            : throw new Refusal($"'{url}' is nothing to post to: give --url http://localhost:8080");
    }

    async Task<int> PostAsync(SimulatedSns sns, string kind, string address, bool identity, int times) {
        if (!Address.IsAddress(address)) throw new Refusal($"'{address}' is no e-mail address");
        for (int i = 0; i < times; i++) {
            var now = DateTimeOffset.UtcNow;
            var mail = new SimulatedMail(address, now.AddSeconds(-2), "Your November offers", "november-offers", sns.TopicArn, identity);
            if (kind == "ooto") await PostAsync(sns.Envelope(mail, "delivery", now.AddSeconds(-1))); // the answer to a delivered mail
            await PostAsync(sns.Envelope(mail, kind, now));
            Tell(times);
        }
        return Total();
    }
    // Only AWS can confirm, for only AWS knows which tokens it gave out; nothing here may answer in its place.
    async Task<int> ConfirmAsync(SimulatedSns sns) {
        await PostAsync(sns.Confirmation());
        int code = Total();
        Console.WriteLine("It says 200 only once AWS has confirmed, and AWS does not know this made-up token: here 503 is right.");
        return code;
    }
    async Task<int> DayAsync(SimulatedSns sns, DateTimeOffset now) {
        var events = SimulatedMail.Day(sns.TopicArn, now);
        await Parallel.ForEachAsync(events, new ParallelOptions { MaxDegreeOfParallelism = AtOnce }, async (each, _) => {
            await PostAsync(sns.Envelope(each.Mail, each.Kind, each.At));
            Tell(events.Count);
        });
        return Total();
    }

    async Task<string> PostAsync(ReadOnlyMemory<byte> body) {
        using var content = new ReadOnlyMemoryContent(body);
        content.Headers.ContentType = new("text/plain", "UTF-8"); // as SNS says
        string answer;
        try {
            using var response = await _http.PostAsync(_target, content);
            string line = (await response.Content.ReadAsStringAsync()).Split('\n')[0];
            answer = $"{(int)response.StatusCode} {string.Concat(line.Where(each => !char.IsControl(each)))}";
        } catch (Exception e) when (e is HttpRequestException or TaskCanceledException) {
            throw new Refusal($"{_target} cannot be reached ({_posted} posted before): is the receiver running?");
        }
        _answers.AddOrUpdate(answer, 1, (_, count) => count + 1);
        Interlocked.Increment(ref _posted);
        return answer;
    }
    // Once in a second, on stderr.
    void Tell(int? of) {
        int second = (int)_watch.Elapsed.TotalSeconds, before = _told;
        if (second == before || Interlocked.CompareExchange(ref _told, second, before) != before) return;
        string all = of is null ? "" : string.Create(CultureInfo.InvariantCulture, $" of {of:N0}");
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{_posted:N0}{all} posted"));
    }
    int Total() {
        foreach (var (answer, count) in _answers.OrderByDescending(each => each.Value))
            Console.WriteLine(count == 1 ? answer : string.Create(CultureInfo.InvariantCulture, $"{answer} ({count:N0} times)"));
        if (_answers.Keys.Any(answer => answer.EndsWith(Verdict.CertificateUnavailable.Why, Ordinal)))
            Console.Error.WriteLine("It looks for certificates elsewhere: start both in one folder, with one Sns:CertificateDirectory.");
        return _answers.Keys.All(answer => answer.StartsWith("200 ", Ordinal)) ? 0 : 1;
    }

    // What was recorded, and what came of each.
    async Task<int> ReplayAsync(List<string> files) {
        int skipped = 0;
        foreach (string file in files)
            await Parallel.ForEachAsync(Read(file), new ParallelOptions { MaxDegreeOfParallelism = AtOnce }, async (each, _) => {
                if (each.Skip is not null) Interlocked.Increment(ref skipped);
                Console.WriteLine($"{each.Name}: {(each.Skip is { } why ? $"skipped, {why}" : await PostAsync(each.Body))}");
                Tell(null);
            });
        Console.WriteLine($"{_posted} posted, {skipped} skipped");
        return Total();
    }
    // A first line that is JSON by itself begins a file of such lines; else the file is one envelope. What the file holds now, and no
    // further: when it is the receiver's own journal, every line that is posted adds one.
    static IEnumerable<(string Name, byte[] Body, string? Skip)> Read(string file) {
        using var reader = Open(file, out long left);
        string first = reader.ReadLine() ?? "";
        if (!TryParse(first, out _)) {
            yield return Recorded(file, first + "\n" + reader.ReadToEnd());
            yield break;
        }
        int number = 1;
        for (string? line = first; line is not null && left > 0; line = reader.ReadLine(), number++) {
            left -= Encoding.UTF8.GetByteCount(line) + 1;
            if (!string.IsNullOrWhiteSpace(line)) yield return Recorded($"{file}:{number}", line);
        }
    }
    static TextReader Open(string file, out long length) {
        try {
            length = file == "-" ? long.MaxValue : new FileInfo(file).Length;
            return file == "-" ? Console.In : new StreamReader(file);
        } catch (UnauthorizedAccessException e) { throw new Refusal(e.Message); }
    }
    static (string, byte[], string?) Recorded(string name, string text) {
        if (!TryParse(text, out var json)) return (name, [], "no JSON object");
        var message = json.Member("message"); // of a journal, which keeps neither tokens nor what its owner did by hand
        if (message.Raw() is null && json.Member("at").Raw() is not null) return (name, [], "no message");
        if (message.Raw() is not null && message.Text("Type") != Envelope.Notification) return (name, [], "a journal keeps no tokens");
        return (name, Encoding.UTF8.GetBytes(message.Raw() ?? text), null);
    }
    static bool TryParse(string text, out JsonElement json) {
        try { json = JsonElement.Parse(text); } catch (JsonException) { json = default; }
        return json.ValueKind == JsonValueKind.Object;
    }
}

/// <summary>An SNS with a key of its own, which only a receiver that reads its certificate directory believes.</summary>
sealed class SimulatedSns {
    readonly ThreadLocal<RSA> _rsa; // an RSA object serves one thread at a time
    readonly string _certificate;
    readonly bool _v1;
    public string TopicArn { get; }

    public SimulatedSns(ReceiverOptions options, bool v1) {
        (TopicArn, _v1) = (options.TopicArns[0], v1);
        try {
            string pem = KeyIn(options.CertificateDirectory);
            _rsa = new(() => {
                var rsa = RSA.Create();
                rsa.ImportFromPem(pem);
                return rsa;
            });
            _certificate = CertificateIn(options.CertificateDirectory);
        } catch (Exception e) when (e is UnauthorizedAccessException or CryptographicException or ArgumentException) {
            throw new Refusal("Sns:CertificateDirectory: " + e.Message);
        }
    }
    // Two simulators may begin at once: who moves first has made the key.
    static string KeyIn(string folder) {
        string path = Path.Combine(folder, "simulator-key.pem"), part = $"{path}.{Guid.NewGuid():N}";
        if (!File.Exists(path)) {
            using var rsa = RSA.Create(2048);
            using (var file = new StreamWriter(Disk.Open(part, FileShare.None))) file.WriteLine(rsa.ExportPkcs8PrivateKeyPem());
            try { File.Move(part, path); } catch (IOException) when (File.Exists(path)) { File.Delete(part); }
        }
        return File.ReadAllText(path);
    }
    // Valid for long: a certificate must be valid at the message's Timestamp, and an edited message may have any.
    string CertificateIn(string folder) {
        var key = _rsa.Value!;
        string hash = Convert.ToHexStringLower(SHA256.HashData(key.ExportSubjectPublicKeyInfo()));
        string name = $"SimpleNotificationService-{hash[..32]}.pem";
        var request = new CertificateRequest("CN=FeedbackReceiver simulator", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        using var certificate = request.CreateSelfSigned(new(2000, 1, 1, 0, 0, 0, TimeSpan.Zero), new(2046, 1, 1, 0, 0, 0, TimeSpan.Zero));
        string path = Path.Combine(folder, name);
        if (!File.Exists(path)) File.WriteAllText(path, certificate.ExportCertificatePem() + "\n");
        return name;
    }

    /// <summary>What SNS posts about a mail.</summary>
    public byte[] Envelope(SimulatedMail mail, string kind, DateTimeOffset at) =>
        Sign(Unsigned(global::Envelope.Notification, mail.Event(kind, at), at.AddMilliseconds(400)) with {
            Subject = mail.IdentityFormat ? null : "Amazon SES Email Event Notification",
        });
    /// <summary>What SNS posts to an endpoint that somebody subscribed.</summary>
    public byte[] Confirmation() {
        string token = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(128));
        string text = $"You have chosen to subscribe to the topic {TopicArn}.\n"
            + "To confirm the subscription, visit the SubscribeURL included in this message.";
        return Sign(Unsigned(global::Envelope.SubscriptionConfirmation, text, DateTimeOffset.UtcNow) with {
            Token = token,
            SubscribeURL = $"{Topic.Parse(TopicArn)!.Origin}?Action=ConfirmSubscription&TopicArn={TopicArn}&Token={token}",
        });
    }
    Envelope Unsigned(string type, string message, DateTimeOffset at) =>
        new(type, $"{Guid.NewGuid()}", TopicArn, message, SimulatedMail.Stamp(at), SignatureVersion: "", Signature: "", SigningCertURL: "");
    /// <summary>`simulate sign`: prints an edited envelope with a signature that fits.</summary>
    public async Task<int> PrintAsync(string path, bool newId) {
        var bytes = new MemoryStream();
        await using (var input = path == "-" ? Console.OpenStandardInput() : File.OpenRead(path)) await input.CopyToAsync(bytes);
        if (global::Envelope.Read(new(bytes.ToArray()), out var envelope) is { } wrong) throw new Refusal($"{path}: {wrong.Why}");
        if (newId) envelope = envelope! with { MessageId = $"{Guid.NewGuid()}", Timestamp = SimulatedMail.Stamp(DateTimeOffset.UtcNow) };
        if (Topic.Parse(envelope!.TopicArn) is null) throw new Refusal($"{path}: TopicArn is not the ARN of a standard SNS topic");
        Console.WriteLine(Encoding.UTF8.GetString(Sign(envelope)));
        return 0;
    }

    byte[] Sign(Envelope envelope) {
        byte[] canonical = ArrayPool<byte>.Shared.Rent(3 * envelope.Message.Length + (32 << 10));
        byte[] signature = _rsa.Value!.SignData(canonical.AsSpan(0, envelope.WriteCanonicalString(canonical)),
            _v1 ? HashAlgorithmName.SHA1 : HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        ArrayPool<byte>.Shared.Return(canonical);
        return JsonSerializer.SerializeToUtf8Bytes(envelope with {
            Signature = Convert.ToBase64String(signature),
            SignatureVersion = _v1 ? "1" : "2",
            SigningCertURL = Topic.Parse(envelope.TopicArn)!.Origin + _certificate,
        }, SnsJson.Lines.Envelope);
    }
}

/// <summary>A mail of a made-up shop, and what SES tells of it.</summary>
sealed record SimulatedMail(string Address, DateTimeOffset At, string Subject, string Campaign, string TopicArn,
    bool IdentityFormat = false) {
    public static readonly string[] Kinds = ["bounce", "soft", "complaint", "not-spam", "delivery", "ooto", "unsubscribe"];
    const string Source = "Example Shop <news@shop.example.com>";
    readonly string _id = NewId(At); // SES writes the time into it

    public static string Stamp(DateTimeOffset at) => at.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);
    static string NewId(DateTimeOffset at) => $"0100{at.ToUnixTimeMilliseconds():x12}-{Guid.NewGuid()}-000000";

    /// <summary>The event in JSON: docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-examples.html</summary>
    public string Event(string kind, DateTimeOffset at) {
        var (name, body) = kind switch {
            "send" => ("Send", []),
            "delivery" => (SesEvent.Delivery, new JsonObject {
                ["timestamp"] = Stamp(at), ["processingTimeMillis"] = (long)(at - At).TotalMilliseconds,
                ["recipients"] = new JsonArray(Address),
                ["smtpResponse"] = "250 2.0.0 OK queued", ["reportingMTA"] = "a12-48.smtp-out.amazonses.com",
            }),
            "bounce" => Bounce(at, "Permanent", "General", "5.1.1", $"smtp; 550 5.1.1 <{Address}>: user unknown"),
            "soft" => Bounce(at, "Transient", "MailboxFull", "5.2.2", $"smtp; 552 5.2.2 <{Address}>: mailbox is over quota"),
            "ooto" => Bounce(at, "Transient", "General", null, null),
            "complaint" or "not-spam" => (SesEvent.Complaint, new JsonObject {
                ["feedbackId"] = NewId(at), ["complaintSubType"] = null, ["complainedRecipients"] = Recipients(null, null),
                ["timestamp"] = Stamp(at), ["userAgent"] = "Example-Feedback-Loop/1.0",
                ["complaintFeedbackType"] = kind == "complaint" ? "abuse" : "not-spam", ["arrivalDate"] = Stamp(At),
            }),
            _ => (SesEvent.Subscription, new JsonObject {
                ["contactList"] = "shop-readers", ["timestamp"] = Stamp(at), ["source"] = "UnsubscribeHeader",
                ["newTopicPreferences"] = new JsonObject { ["unsubscribeAll"] = true },
                ["oldTopicPreferences"] = new JsonObject { ["unsubscribeAll"] = false },
            }),
        };
        var json = new JsonObject {
            [IdentityFormat ? "notificationType" : "eventType"] = name, ["mail"] = Mail(),
            [JsonNamingPolicy.CamelCase.ConvertName(name)] = body,
        };
        var (utf8, writer) = ApiJson.Write();
        json.WriteTo(writer);
        writer.Flush();
        return Encoding.UTF8.GetString(utf8.WrittenSpan) + (IdentityFormat ? "" : "\n");
    }

    (string, JsonObject) Bounce(DateTimeOffset at, string type, string subType, string? status, string? text) => (SesEvent.Bounce, new() {
        ["feedbackId"] = NewId(at), ["bounceType"] = type, ["bounceSubType"] = subType,
        ["bouncedRecipients"] = Recipients(status, text), ["timestamp"] = Stamp(at),
        ["reportingMTA"] = "dns; a12-48.smtp-out.amazonses.com",
    });
    JsonArray Recipients(string? status, string? diagnostic) => new(status is null ? new JsonObject { ["emailAddress"] = Address }
        : new JsonObject { ["emailAddress"] = Address, ["action"] = "failed", ["status"] = status, ["diagnosticCode"] = diagnostic });

    JsonObject Mail() {
        string messageId = $"<{Guid.NewGuid()}@shop.example.com>";
        string date = At.UtcDateTime.ToString("ddd, dd MMM yyyy HH:mm:ss +0000", CultureInfo.InvariantCulture);
        (string Name, string Value)[] headers =
            [("From", Source), ("To", Address), ("Subject", Subject), ("Date", date), ("Message-ID", messageId)];
        var mail = new JsonObject {
            ["timestamp"] = Stamp(At), ["source"] = Source, ["sendingAccountId"] = TopicArn.Split(':')[4], ["messageId"] = _id,
            ["destination"] = new JsonArray(Address), ["headersTruncated"] = false,
            ["headers"] = new JsonArray([.. headers.Select(header => new JsonObject { ["name"] = header.Name, ["value"] = header.Value })]),
            ["commonHeaders"] = new JsonObject {
                ["from"] = new JsonArray(Source), ["date"] = date, ["to"] = new JsonArray(Address), ["messageId"] = messageId,
                ["subject"] = Subject,
            },
        };
        if (IdentityFormat) (mail["sourceIp"], mail["callerIdentity"]) = ("203.0.113.25", "shop-mailer");
        else mail["tags"] = new JsonObject {
            ["ses:operation"] = new JsonArray("SendRawEmail"), ["ses:configuration-set"] = new JsonArray("shop-news"),
            ["ses:source-ip"] = new JsonArray("203.0.113.25"), ["ses:from-domain"] = new JsonArray("shop.example.com"),
            ["ses:caller-identity"] = new JsonArray("shop-mailer"), ["campaign"] = new JsonArray(Campaign),
        };
        return mail;
    }

    // The mailings of a day: from so many hours ago, over so many hours; of its mails so many bounce for good, find a full mailbox,
    // are complained about. All in all 10,000 sends, 110 bounces (1.1 %), and 59 complaints of 9,833 deliveries: 0.6 %, but 0.04 % without
    // "We miss you!", which went to addresses that nobody had written to in years.
    sealed record Mailing(string Subject, string Campaign, double From, double Hours, int Mails, int Bounces, int Full, int Complaints);
    static readonly Mailing[] Mailings = [
        new("Your order is on its way", "order-updates", 23.5, 23.4, 3000, 6, 12, 1),
        new("Your November offers", "november-offers", 20, 2, 3500, 30, 20, 1),
        new("We miss you!", "we-miss-you", 13, 1, 1500, 60, 15, 56), new("Your invoice", "invoices", 9, 7, 2000, 14, 10, 1),
    ];
    static readonly string[] Names = ["anna", "ben", "carla", "david", "emma", "felix", "greta", "henry", "ines", "jonas", "karl", "lena"],
        Domains = ["example.com", "example.org", "example.net", "mail.example", "post.example"],
        BadDomains = ["oldmail.example", "gmial.com", "example.org", "oldmail.example", "hotmial.com", "example.com", "yaho.com"];

    /// <summary>The last 24 hours of the shop, oldest first; the same at each call but for the ids.</summary>
    public static List<(SimulatedMail Mail, string Kind, DateTimeOffset At)> Day(string topicArn, DateTimeOffset now) {
        var events = new List<(SimulatedMail Mail, string Kind, DateTimeOffset At)>();
        var random = new Random(1);
        foreach (var mailing in Mailings)
            for (int i = 0; i < mailing.Mails; i++) {
                string kind = i < mailing.Bounces ? "bounce" : i < mailing.Bounces + mailing.Full ? "soft" : "delivery";
                string[] domains = kind == "bounce" ? BadDomains : Domains;
                var mail = new SimulatedMail($"{Names[i % Names.Length]}{mailing.Campaign[0]}{i}@{domains[i % domains.Length]}",
                    now.AddHours(-mailing.From + random.NextDouble() * mailing.Hours), mailing.Subject, mailing.Campaign, topicArn);
                var arrival = mail.At.AddSeconds(1 + random.NextDouble() * 3);
                events.AddRange([(mail, "send", mail.At), (mail, kind, arrival)]);
                int left = mailing.Mails - i; // the last ones hear from their readers
                if (left <= mailing.Complaints) events.Add((mail, "complaint", Later(arrival, minutes: 5 + random.NextDouble() * 300)));
                else if (left <= mailing.Complaints + 12)
                    events.Add((mail, left % 12 == 0 ? "not-spam" : "ooto", Later(arrival, minutes: 1)));
            }
        return [.. events.OrderBy(each => each.At)];

        DateTimeOffset Later(DateTimeOffset at, double minutes) => at.AddMinutes(minutes) < now ? at.AddMinutes(minutes) : now;
    }
}
