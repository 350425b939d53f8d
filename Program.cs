// FeedbackReceiver: SES tells SNS who bounced and who complained; this receiver keeps it, believes no forgery, and
// answers `curl localhost:8081/suppressed/<email>`. The life of one message, from top to bottom:
//
//   POST /sns -> envelope -> topic -> signature -> SES event -> journal (on disk) -> suppressions -> 200
//                                                                 |
//                                                                 +-> follower thread -> LiteDB (history, counts)
//
//    1. Composition   2. Settings   3. Endpoints   4. SNS   5. SES   6. Judgement   7. Journal   8. Store   9. Plumbing

using LiteDB;
using LiteDB.Engine;
using JsonSerializer = System.Text.Json.JsonSerializer;

ExceptionHandling.SetUnhandledExceptionHandler(Receiver.IsNoReasonToEnd);
return await Receiver.RunAsync(args);

// ---- 1. Composition ---------------------------------------------------------------------------------------------
// Everything that exists, once, and every route on one line.

static class Receiver {
    /// <summary>Without \u0022 where \" will do: it is served as JSON, or kept as JSON lines, never inside HTML.</summary>
    public static readonly JavaScriptEncoder Relaxed = JavaScriptEncoder.UnsafeRelaxedJsonEscaping;

    /// <summary>After a full or failing disk, LiteDB 5.0.20 may throw from a finalizer, when its file is long let go of.</summary>
    public static bool IsNoReasonToEnd(Exception thrown) => thrown is LiteException;

    /// <summary>Runs the receiver, or `rebuild`, until told to stop. A refused start is one line on stderr and exit code 1.</summary>
    public static async Task<int> RunAsync(string[] args) {
        try {
            if (Extras.Command(args) is { } command) return await command;
            bool rebuild = args is ["rebuild", ..];
            if (args is [[not ('-' or '/'), ..] word, ..] && !rebuild && !word.Contains('=')) throw new Refusal($"no command is called '{word}'");
            await using var app = Build(rebuild ? args[1..] : args);
            if (rebuild) await app.Services.GetRequiredService<LiteDbStore>().RebuildAsync();
            else await app.RunAsync();
            return 0;
        } catch (Exception refusal) when (refusal is Refusal or OptionsValidationException or IOException or UnauthorizedAccessException
            or System.Net.Sockets.SocketException or InvalidDataException or InvalidOperationException) { // the binder's names the setting
            await Console.Error.WriteLineAsync("FeedbackReceiver: " + (refusal is System.Net.Sockets.SocketException ? "Kestrel:Endpoints: " : "") + refusal.Message);
            return 1;
        }
    }
    /// <summary>Composes the receiver. <paramref name="with"/> is where tests put their clock, their disk and their SNS.</summary>
    public static WebApplication Build(string[] args, Action<WebApplicationBuilder>? with = null) {
        // Who sends half a body may hold a stop up for ten seconds, not thirty. Unwatched, or every write to data/ wakes a watcher.
        var builder = WebApplication.CreateSlimBuilder(["--shutdownTimeoutSeconds=10", .. args, "--hostBuilder:reloadConfigOnChange=false"]);
        ReceiverOptions.AddTo(builder);
        builder.WebHost.ConfigureKestrel((context, kestrel) => Guard.Listen(kestrel, context.Configuration));
        builder.Services.ConfigureHttpJsonOptions(json => json.SerializerOptions.TypeInfoResolverChain.Insert(0, ApiJson.Default));
        builder.Services.ConfigureHttpJsonOptions(json => json.SerializerOptions.Encoder = Relaxed);
        builder.Services.AddSingleton(TimeProvider.System).AddSingleton(_ => SnsClient.CreateHttp()).AddSingleton<SnsClient>()
            .AddSingleton<SigningCertificates>().AddSingleton<Intake>().AddSingleton<Guard>().AddSingleton<Log>()
            .AddSingleton<Disk>().AddSingleton<Journal>().AddSingleton<LiteDbStore>()
            .AddSingleton<IFeedbackStore>(services => services.GetRequiredService<LiteDbStore>())
            .AddHostedService(services => services.GetRequiredService<IFeedbackStore>());
        Extras.AddTo(builder);
        with?.Invoke(builder);

        var app = builder.Build();
        app.Use(Problem.AnswerAsync).Use(app.Services.GetRequiredService<Guard>().AdmitAsync);
        app.MapPost("/sns", Endpoints.ReceiveAsync).AllowAnonymous();
        app.MapGet("/sns", Endpoints.Explain).AllowAnonymous();
        app.MapGet("/health", Endpoints.HealthAsync).AllowAnonymous();
        app.MapMethods("/suppressed/{**address}", ["GET", "HEAD"], Endpoints.FindAsync);
        app.MapPut("/suppressed/{**address}", Endpoints.SuppressAsync);
        app.MapDelete("/suppressed/{**address}", Endpoints.LiftAsync);
        app.MapGet("/history/{**address}", Endpoints.HistoryAsync);
        Extras.MapTo(app);
        return app;
    }
}

/// <summary>The seam for extras/: a file there implements its own lines; without the file a call compiles to nothing.</summary>
static partial class Extras {
    public static void AddTo(WebApplicationBuilder builder) {
        AddPostgresStore(builder); // first, for what is started after the store is stopped before it
        AddQueueConsumer(builder);
        AddReports(builder);
        AddAlerts(builder);
        AddHook(builder);
        AddMetrics(builder);
    }
    public static void MapTo(WebApplication app) {
        MapLists(app);
        MapReports(app);
        MapMetrics(app);
    }
    /// <summary>Another command than to run; null when it is none of ours. The result is the exit code.</summary>
    public static Task<int>? Command(string[] args) {
        Task<int>? command = null;
        RunSimulator(args, ref command);
        RunCopy(args, ref command);
        return command;
    }
    static partial void AddPostgresStore(WebApplicationBuilder builder); // extras/PostgresStore.cs
    static partial void AddQueueConsumer(WebApplicationBuilder builder); // extras/QueueConsumer.cs
    static partial void AddReports(WebApplicationBuilder builder);       // extras/Reports.cs
    static partial void AddAlerts(WebApplicationBuilder builder);        // extras/Alerts.cs
    static partial void AddHook(WebApplicationBuilder builder);          // extras/Hook.cs
    static partial void AddMetrics(WebApplicationBuilder builder);       // extras/Metrics.cs
    static partial void MapLists(WebApplication app);                    // extras/Lists.cs
    static partial void MapReports(WebApplication app);
    static partial void MapMetrics(WebApplication app);
    static partial void RunSimulator(string[] args, ref Task<int>? command); // extras/Simulator.cs
    static partial void RunCopy(string[] args, ref Task<int>? command);      // extras/PostgresStore.cs
}

/// <summary>The start is refused. The message is the one line that the operator reads.</summary>
sealed class Refusal(string message) : Exception(message);

// ---- 2. Settings ------------------------------------------------------------------------------------------------
// appsettings.json beside the executable, under the one in the working directory, the environment and the command line.
// A wrong setting stops the start in one line that names it. README.md says what each is for.

sealed class ReceiverOptions : IValidatableObject {
    [ConfigurationKeyName("ConnectionStrings:Feedback"), Required] public string Feedback { get; set; } = "Filename=data/feedback.db";
    [ConfigurationKeyName("Journal:Directory")] public string JournalDirectory { get; set; } = "data/journal";
    [ConfigurationKeyName("Sns:TopicArns")] public string[] TopicArns { get; set; } = [];
    [ConfigurationKeyName("Sns:CertificateDirectory")] public string CertificateDirectory { get; set; } = "data/certificates";
    [ConfigurationKeyName("Sns:MinimumSignatureVersion")] public int MinimumSignatureVersion { get; set; } = 1;
    [ConfigurationKeyName("Api:Key")] public string ApiKey { get; set; } = "";
    [ConfigurationKeyName("Suppression:SoftBounceLimit")] public int SoftBounceLimit { get; set; }

    public static void AddTo(WebApplicationBuilder builder) {
        var beside = new ConfigurationBuilder().SetBasePath(AppContext.BaseDirectory).AddInMemoryCollection([ // the executable may stand alone; and ASP.NET logs each path, with the address in it
            new("Kestrel:Endpoints:Webhook:Url", "http://localhost:8080"), new("Kestrel:Endpoints:Private:Url", "http://localhost:8081"),
            new("Logging:LogLevel:Microsoft", "Warning"), new("Logging:LogLevel:Microsoft.Hosting.Lifetime", "Information"), new("Logging:LogLevel:Microsoft.Extensions.Hosting", "None"),
        ]).AddJsonFile("appsettings.json", optional: true).Build();
        builder.Configuration.Sources.Insert(0, new ChainedConfigurationSource { Configuration = beside });
        builder.Services.AddSingleton<IValidateOptions<ReceiverOptions>, ReceiverOptionsValidator>()
            .AddOptions<ReceiverOptions>().Bind(builder.Configuration).ValidateOnStart();
    }

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext) {
        if (TopicArns.Length == 0) yield return new("Sns:TopicArns is empty: name the topics to believe, as in Sns__TopicArns__0=arn:aws:sns:...");
        foreach (string arn in TopicArns.Where(arn => Topic.Parse(arn) is null))
            yield return new($"Sns:TopicArns: '{arn}' is not the ARN of a standard SNS topic");
        if (MinimumSignatureVersion is not (1 or 2)) yield return new("Sns:MinimumSignatureVersion must be 1 or 2");
        if (CertificateDirectory.Length == 0) yield return new("Sns:CertificateDirectory is empty");
        if (JournalDirectory.Length == 0) yield return new("Journal:Directory is empty");
        if (ApiKey is { Length: > 0 and < 16 }) yield return new("Api:Key is too short: 16 characters or more");
        if (SoftBounceLimit is < 0 or > 100) yield return new("Suppression:SoftBounceLimit must be 0 (off) to 100");
        if ("e\u0301".Normalize().Length != 1)
            yield return new("Addresses cannot be compared without ICU: install libicu, or unset DOTNET_SYSTEM_GLOBALIZATION_INVARIANT");
    }
}

[OptionsValidator] sealed partial class ReceiverOptionsValidator : IValidateOptions<ReceiverOptions>;

/// <summary>A topic that the operator named: only its own SNS, at <paramref name="Origin"/>, speaks for it.</summary>
sealed partial record Topic(string Origin) {
    // Partitions and their suffixes: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
    static readonly FrozenDictionary<string, string> Suffixes = new Dictionary<string, string> {
        ["aws"] = "amazonaws.com", ["aws-us-gov"] = "amazonaws.com", ["aws-cn"] = "amazonaws.com.cn", ["aws-eusc"] = "amazonaws.eu",
        ["aws-iso"] = "c2s.ic.gov", ["aws-iso-b"] = "sc2s.sgov.gov", ["aws-iso-e"] = "cloud.adc-e.uk", ["aws-iso-f"] = "csp.hci.ic.gov",
    }.ToFrozenDictionary();
    [GeneratedRegex(@"\Aarn:(aws[a-z-]*):sns:([a-z]+(?:-[a-z]+)+-[0-9]+):[0-9]{12}:[A-Za-z0-9_-]{1,256}\z")] static partial Regex Arns { get; }
    [GeneratedRegex(@"\ASimpleNotificationService-[0-9a-fA-F]{1,64}\.pem\z")] static partial Regex CertificateNames { get; }
    /// <summary>Null when this is no ARN of a standard topic in a partition that we know.</summary>
    public static Topic? Parse(string arn) =>
        Arns.Match(arn) is { Success: true } parts && Suffixes.TryGetValue(parts.Groups[1].Value, out string? suffix)
            ? new($"https://sns.{parts.Groups[2].Value}.{suffix}/") : null;
    /// <summary>The file name of a signing certificate that this topic's SNS may name, or null. Compared as the original
    /// text: no parser stands between what was checked and what is fetched.</summary>
    public string? CertificateName(string signingCertUrl) => signingCertUrl.StartsWith(Origin, Ordinal)
        && signingCertUrl[Origin.Length..] is var name && CertificateNames.IsMatch(name) ? name : null;
}

// ---- 3. Endpoints -----------------------------------------------------------------------------------------------
// To SNS 2xx means "kept", 4xx "never", 5xx "again": docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html

/// <summary>What SNS is told: 200 only for what is on disk, 4xx for what will never be right, 503 for what may mend.</summary>
sealed record Verdict(int Status, string Why) {
    public static readonly Verdict Kept = new(200, "kept"), Confirmed = new(200, "subscription confirmed"),
        Unread = new(200, "kept, but it is no SES event that this receiver can read"),
        Malformed = new(400, "no SNS envelope: UTF-8 JSON with Type, MessageId, TopicArn, Message, Timestamp, SignatureVersion, "
            + "Signature and SigningCertURL, each once (is raw message delivery on?)"),
        RawDelivery = new(400, "no SNS envelope, but an SES event without one: raw message delivery is on, so nobody has signed it"),
        UnknownType = new(400, "Type is none that SNS posts"), ControlCharacter = new(400, "control character in a signed field other than Message"),
        UnknownTopic = new(403, "TopicArn is not among Sns:TopicArns"),
        UntrustedCertificateUrl = new(403, "SigningCertURL is not of this topic's SNS"),
        UnsupportedVersion = new(403, "SignatureVersion is not 1 or 2, or under Sns:MinimumSignatureVersion"),
        UnusableCertificate = new(403, "the signing certificate has no RSA key of 2048 bits, or was not valid at Timestamp"),
        BadSignature = new(403, "the signature does not fit"), TooLarge = new(413, "over 1 MiB"),
        CertificateUnavailable = new(503, "the signing certificate cannot be had now"),
        Sha1Forbidden = new(503, "this host forbids SHA-1: set SignatureVersion 2 on the topic"),
        NotConfirmed = new(503, "the subscription could not be confirmed now"), Busy = new(503, "too much is waiting"),
        Unwritable = new(503, "the journal cannot be written now"), Incomplete = new(503, "the body did not come");
}

static partial class Endpoints {
    /// <summary>POST /sns. Answers 200 only when the message is on disk.</summary>
    public static async Task<ContentHttpResult> ReceiveAsync(HttpContext context, Intake intake) {
        var verdict = await intake.ReceiveAsync(context.Request, context.RequestAborted);
        if (verdict.Status == 503) context.Response.Headers.RetryAfter = "20";
        return TypedResults.Text(verdict.Why + "\n", "text/plain", Encoding.UTF8, verdict.Status);
    }
    /// <summary>GET /sns: what this URL is, for whoever opens it in a browser.</summary>
    public static ContentHttpResult Explain() => TypedResults.Text(
        "FeedbackReceiver takes Amazon SNS messages here, by POST. To subscribe a topic:\naws sns subscribe --topic-arn <TopicArn> "
        + "--protocol https --notification-endpoint https://<this host>/sns\n");
    /// <summary>GET /health: 503 while the journal cannot be written; asking tries again.</summary>
    public static async Task<ContentHttpResult> HealthAsync(IFeedbackStore store) => await store.IsWritableAsync()
        ? TypedResults.Text("ok\n") : TypedResults.Text("the journal cannot be written\n", statusCode: 503);
    /// <summary>GET and HEAD /suppressed/{address}: 200 suppressed, 404 not, 503 while that cannot be told.</summary>
    public static async Task<Results<Ok<Answer>, NotFound<Answer>, ProblemHttpResult>> FindAsync(HttpContext http, IFeedbackStore store) {
        string address = AddressIn(http);
        if (await store.FindAsync(Address.Key(address)) is not { } known) return Problem.Later(http);
        if (!known.Suppressed && !Address.IsAddress(address)) return Problem.NoAddress;
        http.Response.Headers["X-Suppressed"] = known.Suppressed ? "true" : "false";
        return known.Suppressed ? TypedResults.Ok(new Answer(address, known)) : TypedResults.NotFound(new Answer(address, known));
    }
    /// <summary>PUT /suppressed/{address}: suppresses by hand. 201, or 200 when it was suppressed already.</summary>
    public static async Task<Results<Ok<Answer>, Created<Answer>, ProblemHttpResult>> SuppressAsync(
        HttpContext http, IFeedbackStore store, TimeProvider clock) {
        string address = AddressIn(http), key = Address.Key(address);
        if (!Address.IsAddress(address)) return Problem.NoAddress;
        if (await SuppressBody.ReadAsync(http.Request) is not { } body) return Problem.Of(400, SuppressBody.Form);
        var before = await store.FindAsync(key) ?? Known.Nothing;
        var commit = await store.CommitAsync(new Entry(After(before, clock), Suppress: new(key, Reason.Manual, body.Note)));
        if (commit != Commit.Kept || await store.FindAsync(key) is not { } known) return Problem.Later(http, commit);
        return before.Suppressed ? TypedResults.Ok(new Answer(address, known)) : TypedResults.Created((string?)null, new Answer(address, known));
    }
    /// <summary>DELETE /suppressed/{address}: lifts it, keeps the history. Evidence from before never suppresses again.</summary>
    public static async Task<Results<NoContent, ProblemHttpResult>> LiftAsync(HttpContext http, IFeedbackStore store, TimeProvider clock) {
        string address = AddressIn(http), key = Address.Key(address);
        if (await store.FindAsync(key) is not { } known) return Problem.Later(http);
        if (!known.Suppressed) return Address.IsAddress(address) ? Problem.Of(404, "The address is not suppressed.") : Problem.NoAddress;
        var commit = await store.CommitAsync(new Entry(After(known, clock), Lift: new(key)));
        return commit == Commit.Kept ? TypedResults.NoContent() : Problem.Later(http, commit);
    }
    /// <summary>GET /history/{address}: its newest 1,000 events, or 4 MiB of them. `complete` is false when the follower was two seconds behind.</summary>
    public static async Task<Results<FileContentHttpResult, ProblemHttpResult>> HistoryAsync(HttpContext http, IFeedbackStore store) {
        string address = AddressIn(http);
        if (!Address.IsAddress(address)) return Problem.NoAddress;
        bool complete = await store.CaughtUpAsync();
        var (body, json) = ApiJson.Write();
        var newest = store.EventsAsync(new(Address: Address.Key(address)), http.RequestAborted).Take(1000)
            .TakeWhile(_ => json.BytesCommitted + json.BytesPending <= ApiJson.LongestPage);
        json.WriteStartObject();
        json.WriteString("address", Address.Key(address));
        json.WriteBoolean("complete", complete);
        json.WriteStartArray("events");
        await foreach (var (_, feedback) in newest) feedback.WriteTo(json);
        json.WriteEndArray();
        json.WriteEndObject();
        json.Flush();
        return TypedResults.Bytes(body.WrittenMemory, "application/json; charset=utf-8");
    }
    // What is done by hand counts even when the clock has gone back behind the last lift.
    static DateTimeOffset After(Known known, TimeProvider clock) => clock.GetUtcNow() is var now && now > known.LiftedAt ? now : known.LiftedAt.AddTicks(1);
    // From the raw target: routing leaves %2F as it is but decodes the rest, which cannot be told apart afterwards.
    public static string AddressIn(HttpContext http) {
        string target = http.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget.Split('?')[0];
        string route = http.Request.Path.Value!, prefix = route[..(route.IndexOf('/', 1) + 1)];
        string raw = target.IndexOf(prefix, Ordinal) is >= 0 and var at ? target[(at + prefix.Length)..] : "", address = Uri.UnescapeDataString(raw);
        // "" is no address; nor is what cannot be decoded, since it is no UTF-8, nor what a client should have resolved.
        return raw is ['/', ..] || address is ['.', '/', ..] || Undecoded().IsMatch(Uri.UnescapeDataString(raw.Replace("%25", "", Ordinal))) ? "" : address;
    }
    [GeneratedRegex("%[0-9a-fA-F]{2}")] private static partial Regex Undecoded();
}

/// <summary>Who may ask for more than the open routes: this machine on the private listener, and who has the key on either.</summary>
sealed class Guard(IOptions<ReceiverOptions> options) {
    sealed record PrivateListener(bool FromHere); // on a connection that the private listener accepted; nothing in a request can bring it
    readonly byte[]? _key = options.Value.ApiKey.Length == 0 ? null : Hash(options.Value.ApiKey);
    /// <summary>Binds Kestrel:Endpoints. One by any other name than Private is a webhook listener: closed.</summary>
    /// <exception cref="Refusal">The private listener could be reached from elsewhere without a key.</exception>
    public static void Listen(KestrelServerOptions kestrel, IConfiguration configuration) {
        foreach (var endpoint in configuration.GetSection("Kestrel:Endpoints").GetChildren()) {
            string setting = $"{endpoint.Path}:Url '{endpoint["Url"]}'";
            try {
                if (BindingAddress.Parse(endpoint["Url"]!) is var binding && binding is { Scheme: "https" } or { Port: < 0 or > 65535 }) throw new FormatException();
                if (!endpoint.Key.Equals("Private", OrdinalIgnoreCase) || binding.IsUnixPipe || IsLoopback(binding.Host)) continue;
            } catch (FormatException) { throw new Refusal(setting + " is no address to listen on, as http://localhost:8081 is"); }
            if (string.IsNullOrEmpty(configuration["Api:Key"])) throw new Refusal(setting + " is open to other machines: set Api:Key first");
        }
        kestrel.AddServerHeader = false;
        (kestrel.Limits.MaxRequestBodySize, kestrel.Limits.MaxConcurrentConnections) = (Intake.MaxBytes, 1000);
        kestrel.Limits.MinRequestBodyDataRate = new(bytesPerSecond: 64 << 10, gracePeriod: TimeSpan.FromSeconds(5));
        kestrel.Configure(configuration.GetSection("Kestrel")).Endpoint("Private", own => own.ListenOptions.Use(next => connection => {
            connection.Features.Set(new PrivateListener(connection.RemoteEndPoint is not IPEndPoint { Address: var from } || IPAddress.IsLoopback(from)));
            return next(connection);
        }));
    }

    public Task AdmitAsync(HttpContext context, RequestDelegate next) {
        if (context.GetEndpoint()?.Metadata.GetMetadata<IAllowAnonymous>() is not null
            || context.Request.Path.Value is "/sns" or "/health") return next(context); // by another method: 405
        var (listener, headers) = (context.Features.Get<PrivateListener>(), context.Request.Headers);
        bool isPrivate = listener is not null, local = listener is { FromHere: true } && !headers.ContainsKey("X-Original-For"); // a proxy's, where the framework is told to believe it
        // Another name in Host or Origin: a page from elsewhere has a browser on this machine ask for it (DNS rebinding).
        if (local && IsLoopback(context.Request.Host.Host) && IsFromHere(headers.Origin)) return next(context);
        if (HasKey(headers.Authorization)) return IsFromElsewhere(context.Request)
            ? Problem.Of(403, "A page from elsewhere may change nothing here.").ExecuteAsync(context) : next(context);
        if (local) return Problem.Of(403, "The private listener answers to the name localhost, or to the key.").ExecuteAsync(context);
        if (_key is null && !isPrivate) return Problem.Of(404, "Nothing is here.").ExecuteAsync(context);
        // A line each: browsers look for Basic at the start of one.
        context.Response.Headers.WWWAuthenticate = new(["Bearer", "Basic realm=\"FeedbackReceiver\", charset=\"UTF-8\""]);
        return Problem.Of(401, "Api:Key is wanted, as a bearer token or as a Basic password.").ExecuteAsync(context);
    }
    bool HasKey(string? authorization) {
        if (_key is null || authorization?.Split(' ', 2) is not [var scheme, var key]) return false;
        byte[] pair = new byte[key.Length];
        if (scheme.Equals("Basic", OrdinalIgnoreCase))
            key = Convert.TryFromBase64String(key, pair, out int length) ? Encoding.UTF8.GetString(pair, 0, length).Split(':', 2)[^1] : "";
        else if (!scheme.Equals("Bearer", OrdinalIgnoreCase)) return false;
        return CryptographicOperations.FixedTimeEquals(Hash(key), _key);
    }
    static byte[] Hash(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));
    // A browser sends a Basic password that it knows along with what any page posts: https://www.w3.org/TR/fetch-metadata/
    // Over plain http to another machine it does not say from which site, and only Origin tells.
    static bool IsFromElsewhere(HttpRequest request) => request.Method is not ("GET" or "HEAD")
        && (request.Headers["Sec-Fetch-Site"].ToString() is { Length: > 0 } site ? site is not ("same-origin" or "none")
            : request.Headers.Origin.ToString() is { Length: > 0 } origin && origin.Split("//")[^1] != request.Host.Value);
    static bool IsFromHere(string? origin) => string.IsNullOrEmpty(origin)
        || (Uri.TryCreate(origin, UriKind.Absolute, out var from) && IsLoopback(from.Host));
    static bool IsLoopback(string host) => host.Equals("localhost", OrdinalIgnoreCase)
        || (IPAddress.TryParse(host, out var address) && IPAddress.IsLoopback(address));
}

// ---- 4. SNS -----------------------------------------------------------------------------------------------------
// A valid signature proves that SNS sent this, not that our topic did: anyone may own a topic. So the topic is checked
// first, and nothing is fetched for a message whose topic and certificate URL are not ours.
// https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html

/// <summary>The way of every message, whichever door it came by.</summary>
sealed class Intake(SigningCertificates certificates, SnsClient sns, IFeedbackStore store, IOptions<ReceiverOptions> options,
    TimeProvider clock, Log log) {
    /// <summary>SNS publishes 256 KiB at most, which JSON escaping can double. Few messages pass 64 KiB, so only sixteen
    /// larger ones may come at once: the memory that strangers can take is bounded.</summary>
    public const int MaxBytes = 1 << 20, LargeBytes = 64 << 10, LargeAtOnce = 16;
    readonly FrozenDictionary<string, Topic> _topics = options.Value.TopicArns.Distinct().ToFrozenDictionary(arn => arn, arn => Topic.Parse(arn)!);
    readonly ConcurrentDictionary<Verdict, (long Count, long LoggedAt)> _refused = new();
    int _large;
    /// <summary>Told of every verdict, with the envelope where one could be read: it is genuine only when the status is 200.
    /// Called on the thread that answers, so it must be quick.</summary>
    public event Action<Verdict, Envelope?>? Answered;
    /// <summary>Receives the body of a request.</summary>
    public async Task<Verdict> ReceiveAsync(HttpRequest request, CancellationToken cancellation) {
        if (request.ContentLength > MaxBytes) return Refuse(Verdict.TooLarge);
        if (request.ContentLength is null) // then Kestrel's limit would count the framing of the chunks, too
            request.HttpContext.Features.GetRequiredFeature<IHttpMaxRequestBodySizeFeature>().MaxRequestBodySize = 2 * MaxBytes;
        int large = request.ContentLength is null or > LargeBytes ? 1 : 0;
        try {
            if (Interlocked.Add(ref _large, large) > LargeAtOnce && large == 1) return Refuse(Verdict.Busy);
            var body = (await request.BodyReader.ReadAtLeastAsync(MaxBytes + 1, cancellation)).Buffer;
            Envelope? envelope = null;
            var refusal = body.Length > MaxBytes ? Verdict.TooLarge : Envelope.Read(body, out envelope);
            request.BodyReader.AdvanceTo(body.End);
            return refusal is not null ? Refuse(refusal) : await ReceiveAsync(envelope!, cancellation);
        } catch (Exception e) when (e is IOException or OperationCanceledException) {
            // To Kestrel a body that trickles or breaks off is 4xx too, but to SNS that would be an answer.
            return Refuse(e is BadHttpRequestException { StatusCode: 413 } ? Verdict.TooLarge : Verdict.Incomplete);
        } finally { Interlocked.Add(ref _large, -large); }
    }
    /// <summary>Receives an envelope: Kept, Confirmed or Unread only once it is on disk.</summary>
    public async Task<Verdict> ReceiveAsync(Envelope envelope, CancellationToken cancellation) {
        envelope.Unsigned = null; // else it stays in memory for as long as a certificate takes to come
        if (await VerifyAsync(envelope, cancellation) is { } refusal) return Refuse(refusal, envelope);
        if (envelope.Type == Envelope.SubscriptionConfirmation && !await ConfirmAsync(envelope)) return Refuse(Verdict.NotConfirmed, envelope);
        if (envelope.Type == Envelope.UnsubscribeConfirmation) log.Unsubscribed(envelope.TopicArn);
        return await KeepAsync(envelope with { Token = null, SubscribeURL = null });
    }
    /// <summary>Keeps an envelope that was verified, or that something else vouches for: Kept, Confirmed or Unread once on disk.</summary>
    public async Task<Verdict> KeepAsync(Envelope envelope) {
        var entry = new Entry(clock.GetUtcNow(), envelope);
        var commit = await store.CommitAsync(entry);
        if (commit != Commit.Kept) return Refuse(commit == Commit.Busy ? Verdict.Busy : Verdict.Unwritable, envelope);
        var verdict = envelope.Type == Envelope.SubscriptionConfirmation ? Verdict.Confirmed
            : entry.Event.Unread is null ? Verdict.Kept : Verdict.Unread;
        Answered?.Invoke(verdict, envelope);
        return verdict;
    }
    // Whether the envelope is genuine: null when it is. The cheapest check comes first.
    async ValueTask<Verdict?> VerifyAsync(Envelope envelope, CancellationToken cancellation) {
        if (!_topics.TryGetValue(envelope.TopicArn, out var topic)) return Verdict.UnknownTopic;
        if (topic.CertificateName(envelope.SigningCertURL) is not { } name) return Verdict.UntrustedCertificateUrl;
        int version = envelope.SignatureVersion switch { "1" => 1, "2" => 2, _ => 0 };
        if (version < options.Value.MinimumSignatureVersion) return Verdict.UnsupportedVersion;
        if (Iso8601.Read(envelope.Timestamp) is not { } at) return Verdict.Malformed;
        var certificate = await certificates.FindAsync(envelope.SigningCertURL, name).WaitAsync(cancellation);
        return certificate is null ? Verdict.CertificateUnavailable : certificate.Verify(envelope, version, at);
    }
    // Built from TopicArn and Token, so a SubscribeURL that leads elsewhere leads nowhere:
    // https://docs.aws.amazon.com/sns/latest/api/API_ConfirmSubscription.html
    async Task<bool> ConfirmAsync(Envelope envelope) => await sns.GetAsync(_topics[envelope.TopicArn].Origin + "?Action=ConfirmSubscription"
        + $"&TopicArn={Uri.EscapeDataString(envelope.TopicArn)}&Token={Uri.EscapeDataString(envelope.Token!)}", seconds: 10,
        "Confirmation of " + envelope.TopicArn) is not null;
    /// <summary>Counted, and logged once in ten seconds at most: a flood must not fill the disk.</summary>
    public Verdict Refuse(Verdict verdict, Envelope? envelope = null) {
        var (count, loggedAt) = _refused.GetValueOrDefault(verdict);
        bool due = count == 0 || clock.GetElapsedTime(loggedAt).TotalSeconds >= 10;
        _refused[verdict] = (count + 1, due ? clock.GetTimestamp() : loggedAt);
        if (due) log.Refused(verdict.Status, verdict.Why, count + 1);
        Answered?.Invoke(verdict, envelope);
        return verdict;
    }
}

/// <summary>An SNS message: https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
/// The strings are exactly as sent: Timestamp is signed as text.</summary>
sealed record Envelope(string Type, string MessageId, string TopicArn, string Message, string Timestamp, string SignatureVersion,
    string Signature, string SigningCertURL, string? Subject = null, string? Token = null, string? SubscribeURL = null) {
    public const string Notification = "Notification", SubscriptionConfirmation = "SubscriptionConfirmation",
        UnsubscribeConfirmation = "UnsubscribeConfirmation";
    /// <summary>What is not signed. Read so that it, too, may stand there only once; never used, and never stored.</summary>
    [JsonExtensionData] public Dictionary<string, JsonElement>? Unsigned { get; set; }
    /// <summary>Null when this is an envelope as SNS posts it, with its signature yet to be looked at; else what is wrong.</summary>
    public static Verdict? Read(ReadOnlySequence<byte> body, out Envelope? envelope) {
        envelope = null;
        var utf8 = body.IsSingleSegment ? body.FirstSpan : body.ToArray();
        try { envelope = Utf8.IsValid(utf8) ? JsonSerializer.Deserialize(utf8, SnsJson.Default.Envelope) : null; } catch (JsonException) { }
        if (envelope is null) // within an envelope these quotes would be escaped
            return utf8.IndexOf("\"eventType\":"u8) < 0 && utf8.IndexOf("\"notificationType\":"u8) < 0 ? Verdict.Malformed : Verdict.RawDelivery;
        if (envelope.Type is not (Notification or SubscriptionConfirmation or UnsubscribeConfirmation)) return Verdict.UnknownType;
        if (envelope.Type != Notification && (envelope.Token is null || envelope.SubscribeURL is null)) return Verdict.Malformed;
        foreach (string? text in (ReadOnlySpan<string?>)[envelope.MessageId, envelope.Subject, envelope.SubscribeURL, envelope.Timestamp,
            envelope.Token, envelope.TopicArn]) {
            if (text?.Length > 1000) return Verdict.Malformed; // SNS's own are far shorter, and an id becomes a key
            if (text.AsSpan().ContainsAnyInRange('\0', '\x1f') || text.AsSpan().Contains('\x7f')) return Verdict.ControlCharacter;
        }
        return null;
    }
    /// <summary>Writes what SNS signs (AWS also calls it the string to sign) as UTF-8, and tells its length. Its fields follow from
    /// the exact Type: if they were whatever is present, a genuine Notification of anybody's topic could be re-cut into a confirmation
    /// under the same signature, for nothing here is escaped.</summary>
    public int WriteCanonicalString(Span<byte> utf8) {
        bool fits = Type == Notification
            ? Utf8.TryWrite(utf8, $"Message\n{Message}\nMessageId\n{MessageId}\n{(Subject is null ? "" : "Subject\n")}{Subject}{(Subject is null
                ? "" : "\n")}Timestamp\n{Timestamp}\nTopicArn\n{TopicArn}\nType\n{Type}\n", out int length)
            : Utf8.TryWrite(utf8, $"Message\n{Message}\nMessageId\n{MessageId}\nSubscribeURL\n{SubscribeURL}\nTimestamp\n{Timestamp}\nToken\n{Token}\nTopicArn\n{TopicArn}\nType\n{Type}\n", out length);
        return fits ? length : throw new ArgumentException("too short for a canonical string", nameof(utf8));
    }
}

/// <summary>The public key of a signing certificate (null when it is none of RSA with 2048 bits), and when it was valid.</summary>
sealed class SigningCertificate(RSAParameters? key, DateTimeOffset notBefore, DateTimeOffset notAfter) {
    readonly ThreadLocal<RSA> _rsa = new(() => RSA.Create(key!.Value)); // an RSA object serves one thread at a time
    public DateTimeOffset End => notAfter;
    /// <summary>Null when the text is not exactly one certificate.</summary>
    public static SigningCertificate? Parse(string pem) {
        if (pem.Split("-----BEGIN CERTIFICATE-----").Length != 2) return null;
        try {
            using var certificate = X509Certificate2.CreateFromPem(pem);
            using var rsa = certificate.GetRSAPublicKey();
            var (from, until) = (certificate.NotBefore, certificate.NotAfter.AddSeconds(1));
            return new(rsa?.KeySize >= 2048 ? rsa.ExportParameters(includePrivateParameters: false) : null, from, until);
        } catch (CryptographicException) { return null; }
    }
    /// <summary>Null when it fits. Valid at the message's Timestamp, not now: dead letters come up to two weeks late.</summary>
    public Verdict? Verify(Envelope envelope, int version, DateTimeOffset at) {
        if (key is null || at < notBefore || at >= notAfter) return Verdict.UnusableCertificate;
        Span<byte> signature = stackalloc byte[1024];
        // Blanks in it would be decoded, too, and kept: a megabyte of them with each copy of one genuine message.
        if (envelope.Signature.Length > 1368 || !Convert.TryFromBase64String(envelope.Signature, signature, out int length)) return Verdict.BadSignature;
        byte[] canonical = ArrayPool<byte>.Shared.Rent(3 * envelope.Message.Length + (32 << 10));
        try {
            return _rsa.Value!.VerifyData(canonical.AsSpan(0, envelope.WriteCanonicalString(canonical)), signature[..length],
                version == 1 ? HashAlgorithmName.SHA1 : HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1) ? null : Verdict.BadSignature;
        } catch (CryptographicException) when (version == 1) {
            return Verdict.Sha1Forbidden; // OpenSSL under RHEL's policies: https://github.com/dotnet/runtime/issues/65874
        } finally { ArrayPool<byte>.Shared.Return(canonical); }
    }
}

/// <summary>Signing certificates: from memory, then Sns:CertificateDirectory, then SNS. One download a name, four at a
/// time; a failure is remembered for 60 s; 16 names are kept.</summary>
sealed class SigningCertificates(SnsClient sns, IOptions<ReceiverOptions> options, TimeProvider clock, Log log) {
    readonly Lock _gate = new();
    readonly Dictionary<string, (Task<SigningCertificate?> Task, long Since)> _known = new(StringComparer.Ordinal);
    /// <summary>Null when it cannot be had now. The URL is checked, and ends in the file name.</summary>
    public Task<SigningCertificate?> FindAsync(string url, string name) {
        lock (_gate) {
            if (_known.TryGetValue(url, out var known) && (!Failed(known.Task) || clock.GetElapsedTime(known.Since).TotalSeconds < 60)) return known.Task;
            var kept = ReadFile(name);
            if (kept is null && _known.Values.Count(each => !each.Task.IsCompleted) == 4) return Task.FromResult(kept);
            _known.Remove(url);
            // The oldest failure makes room first: a stranger who makes names up must not push a good one out.
            if (_known.Count == 16) _known.Remove(_known.MinBy(each => (!each.Value.Task.IsCompleted, !Failed(each.Value.Task), each.Value.Since)).Key);
            var task = kept is null ? Task.Run(() => DownloadAsync(url, name)) : Task.FromResult<SigningCertificate?>(kept);
            _known[url] = (task, clock.GetTimestamp());
            return task;
        }
    }
    /// <summary>When the last of those in memory ends.</summary>
    public DateTimeOffset? LastEnd { get { lock (_gate) return _known.Values.Max(each => each.Task.IsCompleted ? each.Task.Result?.End : null); } }
    string PathOf(string name) => Path.Combine(options.Value.CertificateDirectory, name);
    static bool Failed(Task<SigningCertificate?> task) => task.IsCompleted && task.Result is null;
    SigningCertificate? ReadFile(string name) {
        try { return SigningCertificate.Parse(File.ReadAllText(PathOf(name))); } catch (Exception e)
            when (e is IOException or UnauthorizedAccessException) { return null; }
    }

    async Task<SigningCertificate?> DownloadAsync(string url, string name) {
        string? pem = await sns.GetAsync(url, seconds: 5, "Signing certificate " + name);
        if (pem is null || SigningCertificate.Parse(pem) is not { } certificate) {
            if (pem is not null) log.Unavailable("Signing certificate " + name, "not one certificate");
            return null;
        }
        try {
            Directory.CreateDirectory(options.Value.CertificateDirectory);
            File.WriteAllText(PathOf(name + ".part"), pem);
            File.Move(PathOf(name + ".part"), PathOf(name), overwrite: true);
        } catch (Exception e) when (e is IOException or UnauthorizedAccessException) { log.NotKept(name, e.GetType().Name); }
        return certificate;
    }
}

/// <summary>Asks SNS: no redirects, so the host that was checked is the one that answers, and 64 KiB at most.</summary>
sealed class SnsClient(HttpClient http, TimeProvider clock, Log log) {
    long _told;
    public static HttpClient CreateHttp() => new(new SocketsHttpHandler { AllowAutoRedirect = false }) { MaxResponseContentBufferSize = 64 << 10 };
    /// <summary>The body of a 200, or null and a line in the log.</summary>
    public async Task<string?> GetAsync(string url, int seconds, string what) {
        string why;
        try {
            using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(seconds), clock);
            using var response = await http.GetAsync(new Uri(url), patience.Token);
            if (response.StatusCode == HttpStatusCode.OK) return await response.Content.ReadAsStringAsync(patience.Token);
            why = "HTTP " + (int)response.StatusCode;
        } catch (Exception e) when (e is HttpRequestException or OperationCanceledException or InvalidOperationException) { why = e.GetType().Name; }
        if (_told != 0 && clock.GetElapsedTime(_told).TotalSeconds < 10) return null; // strangers make up as many names as they like
        _told = clock.GetTimestamp();
        log.Unavailable(what, why);
        return null;
    }
}

// ---- 5. SES -----------------------------------------------------------------------------------------------------
// Both formats: event publishing (eventType) and identity notifications (notificationType). Nothing but the kind is
// required, and no member, subtype or kind that SES adds tomorrow makes an event unreadable.
// https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html

/// <summary>One recipient's share of one SES event: what is stored. Address is the key (<see cref="Address.Key"/>), Recipient
/// is as SES spelled it; Detail is what the other side said; Possible: several are named, perhaps one is meant; Tags and Mail
/// are JSON as SES sent it. SnsMessageId is not MailId.</summary>
sealed record Feedback(string Kind, string Address, string Recipient, DateTimeOffset At, string? Type, string? SubType, string? Status,
    string? Detail, bool Possible, string? MailId, string? Subject, string? Source, string? ConfigurationSet, string? Tags, string? Mail,
    string SnsMessageId) {
    /// <summary>The same for a retry and for the other format, so that each event counts once. What may rightly repeat
    /// takes the SNS MessageId in place of the mail's.</summary>
    public string Id => $"{(Repeats ? SnsMessageId : MailId)}/{Kind.Replace(" ", "", StringComparison.Ordinal).ToLowerInvariant()}/{Type}/{Address}";
    /// <summary>The values of one of the mail's tags; SES allows several.</summary>
    public IEnumerable<string?> TagValues(string name) {
        if (Tags is null) return [];
        using var tags = JsonDocument.Parse(Tags);
        return [.. tags.RootElement.Member(name).Elements().Select(value => value.AsText())];
    }
    bool Repeats => MailId is null || Kind is "Open" or "Click" or "DeliveryDelay" or SesEvent.Subscription;
    /// <summary>To the mailbox simulator: SES does not count such mail either.</summary>
    public bool ToSimulator => Address.EndsWith("@simulator.amazonses.com", Ordinal);
    /// <summary>The key that puts events into the order of their time: 48 bits of milliseconds, then the hash of Id.</summary>
    public Guid SortKey => KeyAt(At.ToUnixTimeMilliseconds());
    public Guid KeyAt(long milliseconds) => SortKeyOf(milliseconds, SHA256.HashData(Encoding.UTF8.GetBytes(Id)));
    /// <summary>The key that both stores know an event by: the time that SES writes into a mail's id (in both formats the same, and so
    /// neighbours in time are neighbours on disk), then the hash of Id.</summary>
    public Guid PrimaryKey => KeyAt(SentAt);
    /// <summary>Milliseconds, by the mail's id; 0 when that has none.</summary>
    public long SentAt => MailId is { Length: > 16 } mail && long.TryParse(mail.AsSpan(4, 12), NumberStyles.AllowHexSpecifier,
        CultureInfo.InvariantCulture, out long sent) ? sent : 0;
    public static Guid SortKeyOf(long milliseconds, ReadOnlySpan<byte> hash) {
        Span<byte> key = stackalloc byte[16];
        BinaryPrimitives.WriteInt64BigEndian(key, Math.Clamp(milliseconds, 0, (1L << 48) - 1) << 16);
        hash[..10].CopyTo(key[6..]);
        return new Guid(key, bigEndian: true);
    }
    /// <summary>What SES said of it, by the names that the routes print and the stores keep.</summary>
    public IEnumerable<(string Name, string? Value)> Texts => [("id", Id), ("kind", Kind), ("type", Type), ("subtype", SubType),
        ("status", Status), ("detail", Detail), ("recipient", Recipient), ("mailId", MailId), ("subject", Subject), ("source", Source),
        ("configurationSet", ConfigurationSet), ("snsMessageId", SnsMessageId)];
    /// <summary>The event as the routes print it: without `mail`, and without what SES did not say.</summary>
    public void WriteTo(Utf8JsonWriter json) {
        json.WriteStartObject();
        json.WriteString("at", At.UtcDateTime);
        json.WriteString("address", Address);
        foreach (var (name, value) in Texts) if (value is not null) json.WriteString(name, value);
        if (Possible) json.WriteBoolean("possible", true);
        if (Tags is not null) {
            json.WritePropertyName("tags");
            json.WriteRawValue(Tags);
        }
        json.WriteEndObject();
    }
}

/// <summary>Which events are asked for: what is null lets everything pass. Since is inclusive, Until is not; Before is the sort key
/// that ended the page before. Domain is the recipient's; Tag is one of the mail's, with its value.</summary>
sealed record EventQuery(string? Kind = null, string? Address = null, DateTimeOffset? Since = null, DateTimeOffset? Until = null,
    Guid? Before = null, string? Type = null, string? SubType = null, string? Domain = null, string? Subject = null, string? Source = null,
    string? ConfigurationSet = null, (string Name, string Value)? Tag = null) {
    public bool Matches(Feedback feedback) => Is(Kind, feedback.Kind) && Is(Address, feedback.Address)
        && !(feedback.At < Since) && !(feedback.At >= Until) && Is(Type, feedback.Type) && Is(SubType, feedback.SubType)
        && (Domain is null || feedback.Address.EndsWith("@" + Domain, Ordinal)) && Is(Subject, feedback.Subject) && Is(Source, feedback.Source)
        && Is(ConfigurationSet, feedback.ConfigurationSet) && (Tag is not { } tag || feedback.TagValues(tag.Name).Contains(tag.Value));
    static bool Is(string? wanted, string? value) => wanted is null || wanted == value;
    /// <summary>The bounds of the sort keys that can match: inclusive, and exclusive.</summary>
    public Guid Lowest => Since is { } since ? At(since) : Guid.Empty;
    public Guid Highest => Until is { } until && At(until.AddMilliseconds(1)) is var end && !(end > Before) ? end : Before ?? Guid.AllBitsSet;
    public static Guid At(DateTimeOffset time) => Feedback.SortKeyOf(time.ToUnixTimeMilliseconds(), stackalloc byte[10]);
}

/// <summary>What a message says. Unread: why nothing could be read. Validates: SES or SNS only says that the topic works.</summary>
sealed partial record SesEvent(IReadOnlyList<Feedback> Feedback, string? Unread = null, bool Validates = false) {
    public const string Bounce = "Bounce", Complaint = "Complaint", Delivery = "Delivery", Subscription = "Subscription";
    public static readonly SesEvent None = new([]);
    /// <summary>OnAccountSuppressionList and its like: SES never sent the mail.</summary>
    public static bool IsFromList(string subType) => subType.StartsWith("On", Ordinal) && subType.EndsWith("SuppressionList", Ordinal);
    // What each kind calls its members. Null recipients: it names none, so it concerns everybody in mail.destination.
    static (string Body, string? Recipients, string? Type, string? SubType, string? Detail) Members(string kind) => kind switch {
        Bounce => ("bounce", "bouncedRecipients", "bounceType", "bounceSubType", null),
        Complaint => ("complaint", "complainedRecipients", "complaintFeedbackType", "complaintSubType", "userAgent"),
        Delivery => ("delivery", "recipients", null, null, "smtpResponse"),
        "DeliveryDelay" => ("deliveryDelay", "delayedRecipients", "delayType", null, null),
        "Rendering Failure" => ("failure", null, null, "templateName", "errorMessage"),
        "Reject" => ("reject", null, null, null, "reason"),
        "Click" => ("click", null, null, null, "link"),
        "Open" => ("open", null, null, null, "userAgent"),
        Subscription => ("subscription", null, null, null, "contactList"),
        _ => (JsonNamingPolicy.CamelCase.ConvertName(kind), null, null, null, null),
    };

    public static SesEvent Read(Envelope envelope) => envelope.Type != Envelope.Notification ? None : Read(envelope, Whole(envelope.Message));
    /// <summary>The same JSON, as long, with U+FFFD where half an emoji was, so that all of it can be read.</summary>
    public static string Whole(string json) => !json.Contains(@"\u", Ordinal) ? json
        : HalfEmoji().Replace(json, each => each.Groups["half"].Success ? @"\ufffd" : each.Value);

    static SesEvent Read(Envelope envelope, string message) {
        if (message.AsSpan().Trim() is "Successfully validated SNS topic for Amazon SES event publishing.") return None with { Validates = true };
        try {
            using var document = JsonDocument.Parse(message);
            var json = document.RootElement;
            if ((json.Text("eventType") ?? json.Text("notificationType")) is not { } kind) return None with { Unread = "no eventType or notificationType" };
            if (kind == "AmazonSnsSubscriptionSucceeded") return None with { Validates = true };
            if (Read(json, kind, envelope) is not { Count: > 0 } feedback) return None with { Unread = "names no recipient" };
            // Each event repeats what its mail says, in characters; SES names fifty recipients at most.
            return feedback.Count > 50 && feedback.Sum(each => new[] { each.Mail, each.Kind, each.Detail, each.Type, each.SubType }.Sum(text => text?.Length ?? 0L)) > 64 << 20
                ? None with { Unread = "names more recipients than SES does" } : new(feedback);
        } catch (JsonException) { return None with { Unread = "not JSON" }; }
    }

    static List<Feedback> Read(JsonElement json, string kind, Envelope envelope) {
        var names = Members(kind);
        JsonElement body = json.Member(names.Body), mail = json.Member("mail"), tags = mail.Member("tags");
        var recipients = (names.Recipients is null ? mail.Member("destination") : body.Member(names.Recipients)).Elements();
        var at = Iso8601.Read(body.Text("timestamp")) ?? Iso8601.Read(mail.Text("timestamp")) ?? Iso8601.Read(envelope.Timestamp);
        string? type = body.Text(names.Type), subType = body.Text(names.SubType), detail = body.Text(names.Detail), mailId = mail.Text("messageId"),
            subject = mail.Member("commonHeaders").Text("subject"), source = mail.Text("source"), rawTags = tags.Raw(), rawMail = mail.Raw(),
            set = tags.Member("ses:configuration-set").Elements() is [var name, ..] ? name.AsText() : null;
        // The preferences of a contact list: https://docs.aws.amazon.com/ses/latest/dg/sending-email-list-management.html
        if (kind == Subscription) type = body.Member("newTopicPreferences").Member("unsubscribeAll").ValueKind switch {
            JsonValueKind.True => "unsubscribeAll",
            JsonValueKind.False => "subscribed",
            _ => null,
        };
        var feedback = new List<Feedback>(recipients.Count);
        foreach (var recipient in recipients)
            if ((recipient.AsText() ?? recipient.Text("emailAddress")) is { } text && Address.Key(text) is { Length: > 0 } address)
                feedback.Add(new(kind, address, text, at ?? default, type, subType, recipient.Text("status"), recipient.Text("diagnosticCode") ?? detail,
                    recipients.Count > 1 && (names.Recipients is null || kind == Complaint), mailId, subject, source, set, rawTags, rawMail, envelope.MessageId));
        return feedback;
    }
    [GeneratedRegex(@"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})")]
    private static partial Regex HalfEmoji();
}

/// <summary>The one spelling of an address that is its key, and whether a text is an address at all.</summary>
static partial class Address {
    /// <summary>Display name and brackets off, trimmed, lower case (SES takes no notice of case), NFC, the domain as
    /// punycode. What is no address is trimmed and lowered, never dropped; over 320 bytes it is replaced by its SHA-256.</summary>
    public static string Key(string text) {
        text = Spelling(text);
        return text.Length <= 320 && Encoding.UTF8.GetByteCount(text) <= 320 ? text
            : "sha256:" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)));
    }
    /// <summary>True, too, for the key of an address that was hashed.</summary>
    public static bool IsAddress(string text) => Addresses().IsMatch(Spelling(text));

    static string Spelling(string text) {
        text = text.Trim().ToLowerInvariant();
        string bare = text.EndsWith('>') ? text[(text.TrimEnd('>').LastIndexOf('<') + 1)..] : text;
        bare = End().Replace(bare.TrimStart(), "");
        if (!Ascii.IsValid(bare)) bare = End().Replace(Fold(bare), "");
        return bare.Length > 0 ? bare : text;
    }

    static string Fold(string text) {
        int domain = (text = Nfc(text)).LastIndexOf('@') + 1;
        try { return text[..domain] + new IdnMapping().GetAscii(text, domain).ToLowerInvariant(); } catch (ArgumentException) { return text; }
    }
    /// <summary>With U+FFFD for half a surrogate pair, and for what Normalize throws at.</summary>
    public static string Nfc(string text) => Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)).Replace('\ufffe', '\ufffd').Normalize();
    [GeneratedRegex(@"[\s.>]+\z")] private static partial Regex End();
    [GeneratedRegex("""
        \A(?!.*\.\.)(?:[^\s\p{C}@<>(),;:\\"\[\]]+|"[^\p{C}"]+")@(?:[\p{L}\p{N}_][\p{L}\p{N}._-]*|\[(?:ipv6:)?[0-9a-f.:]+\])\z|\Asha256:[0-9a-f]{64}\z
        """)] private static partial Regex Addresses();
}

// ---- 6. Judgement -----------------------------------------------------------------------------------------------
// What feedback means for an address. Pure, and applied in the order of the journal; to apply a run of entries twice
// changes nothing, so a replay may begin anywhere before the truth.

/// <summary>Why an address is suppressed.</summary>
static class Reason {
    public const string Manual = "manual", SoftBounces = "soft-bounces", Unsubscribe = "unsubscribe", Bounce = "bounce", Complaint = "complaint";
    static readonly string[] WeakestFirst = [Manual, SoftBounces, Unsubscribe, Bounce, Complaint];
    public static int Strength(string? reason) => Array.IndexOf(WeakestFirst, reason);
}

/// <summary>A soft bounce that counts. An auto-reply is one until the Delivery of its mail tells.</summary>
sealed record SoftBounce(string Id, DateTimeOffset At, string? MailId = null, bool MaybeAutoReply = false);

/// <summary>All that is known of an address: the suppression (Reason is null when there is none; Event is the id of its
/// evidence), when it was last lifted, what its owner wanted last, and what counts towards the soft bounce limit.</summary>
sealed record Known(string? Reason = null, DateTimeOffset Since = default, string? Because = null, string? Event = null, string? Note = null,
    bool ByHand = false, DateTimeOffset LiftedAt = default, DateTimeOffset PreferenceAt = default, DateTimeOffset DeliveredAt = default,
    string[]? DeliveredMails = null, SoftBounce[]? SoftBounces = null, string? SoftBecause = null) {
    public static readonly Known Nothing = new();
    [JsonIgnore] public bool Suppressed => Reason is not null;
}

static class Judgement {
    /// <summary>What is known after this feedback; the same object when it changes nothing.</summary>
    public static Known Of(Feedback feedback, Known known, int softBounceLimit) => feedback switch {
        { Kind: SesEvent.Delivery } => softBounceLimit > 0 ? Delivered(feedback, known) : known,
        _ when feedback.At < known.LiftedAt => known,
        { Kind: SesEvent.Complaint, Type: "not-spam" } => known,
        { Kind: SesEvent.Complaint } => Suppress(known, Reason.Complaint, feedback),
        { Kind: SesEvent.Bounce, Type: "Permanent", SubType: "UnsubscribedRecipient" } => Prefers(feedback, known),
        { Kind: SesEvent.Bounce, Type: "Permanent" } => Suppress(known, Reason.Bounce, feedback),
        { Kind: SesEvent.Bounce } => softBounceLimit > 0 ? SoftBounced(feedback, known, softBounceLimit) : known,
        // With several recipients nobody can tell whose preferences these are.
        { Kind: SesEvent.Subscription, Type: "unsubscribeAll" or "subscribed", Possible: false } => Prefers(feedback, known),
        _ => known,
    };
    /// <summary>By hand, or imported with a date and a reason of its own: the stronger reason stays, and the last note wins.</summary>
    public static Known Of(ManualSuppression manual, DateTimeOffset at, Known known) {
        var since = manual.Since ?? at;
        if (since < known.LiftedAt) return known;
        if (manual.Reason == Reason.Unsubscribe && since <= known.PreferenceAt) return known;
        var after = known with { Note = manual.Note ?? known.Note };
        if (manual.Reason == Reason.Unsubscribe) after = after with { PreferenceAt = since };
        if (manual.Reason == Reason.Manual) after = after with { ByHand = true };
        if (manual.Reason == Reason.SoftBounces) after = after with { SoftBecause = after.SoftBecause ?? Imported(manual) };
        return Reason.Strength(manual.Reason) <= Reason.Strength(known.Reason) ? after : after with {
            Reason = manual.Reason,
            Since = known.Suppressed && known.Since < since ? known.Since : since,
            Because = manual.Reason == Reason.Manual ? null : Imported(manual),
            Event = null,
        };
    }
    static string Imported(ManualSuppression manual) => $"An imported list says so ({manual.Reason}).";
    /// <summary>Lifts every reason; the date stays, for evidence from before it. A lift that is known changes nothing.</summary>
    public static Known Lifted(DateTimeOffset at, Known known) => at <= known.LiftedAt ? known : new(LiftedAt: at,
        PreferenceAt: known.PreferenceAt, DeliveredAt: known.DeliveredAt, DeliveredMails: known.DeliveredMails);
    // What somebody wants last, by its date: SNS delivers in any order, and again.
    static Known Prefers(Feedback feedback, Known known) {
        if (feedback.At <= known.PreferenceAt) return known;
        known = known with { PreferenceAt = feedback.At };
        if (feedback.Type != "subscribed") return Suppress(known, Reason.Unsubscribe, feedback);
        return known.Reason != Reason.Unsubscribe ? known : known with {
            Reason = known.SoftBecause is not null ? Reason.SoftBounces : known.ByHand ? Reason.Manual : null,
            Because = known.SoftBecause,
            Event = null,
        };
    }
    // A stronger reason replaces a weaker one, the first date stays.
    static Known Suppress(Known known, string reason, Feedback feedback) =>
        Reason.Strength(reason) <= Reason.Strength(known.Reason) ? known : known with {
            Reason = reason,
            Since = known.Suppressed && known.Since < feedback.At ? known.Since : feedback.At,
            Because = Because(reason, feedback),
            Event = feedback.Id,
        };
    // The message's fault, the sender's haste or somebody's holiday says nothing of the address.
    static Known SoftBounced(Feedback feedback, Known known, int limit) {
        SoftBounce[] before = known.SoftBounces ?? [];
        bool maybeAutoReply = feedback.SubType == "General" && feedback.MailId is not null;
        if (feedback.SubType is "MessageTooLarge" or "ContentRejected" or "AttachmentRejected" or "CustomTimeoutExceeded"
            || (maybeAutoReply && known.DeliveredMails?.Contains(feedback.MailId) == true) || feedback.At <= known.DeliveredAt
            || known.SoftBecause is not null || before.Any(bounce => bounce.Id == feedback.Id)) return known;
        if (before.Length + 1 < limit) return known with { SoftBounces = [.. before, new(feedback.Id, feedback.At, feedback.MailId, maybeAutoReply)] };
        return Suppress(known with { SoftBounces = null, SoftBecause = Because(Reason.SoftBounces, feedback) }, Reason.SoftBounces, feedback);
    }
    // Clears the soft bounces before it, and an auto-reply to it whenever that came. Four mails are remembered.
    static Known Delivered(Feedback feedback, Known known) {
        string[] mails = known.DeliveredMails ?? [];
        if (feedback.MailId is { } mail && !mails.Contains(mail)) mails = [.. mails.TakeLast(3), mail];
        SoftBounce[] bounces = [.. known.SoftBounces?.Where(bounce =>
            bounce.At > feedback.At && !(bounce.MaybeAutoReply && bounce.MailId == feedback.MailId)) ?? []];
        return known with {
            DeliveredAt = feedback.At > known.DeliveredAt ? feedback.At : known.DeliveredAt,
            DeliveredMails = mails,
            SoftBounces = bounces.Length == 0 ? null : bounces,
        };
    }
    // A sentence that a support person can read out.
    static string Because(string reason, Feedback feedback) {
        string mail = feedback.Subject is null ? "A mail" : $"A mail with the subject \"{feedback.Subject}\"", subType = feedback.SubType ?? "";
        string day = feedback.At.UtcDateTime.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);
        string said = feedback.Detail is null ? "." : $". The other side said: {feedback.Detail}";
        bool bySes = subType is "Suppressed" or "EmailValidationSuppressed" || SesEvent.IsFromList(subType);
        // As SES spelled it, for its list minds case; a quote would end the argument.
        string listed = feedback.Recipient.Trim().TrimEnd('>').Split('<')[^1].Replace("'", "'\\''", StringComparison.Ordinal);
        return feedback.Kind switch {
            SesEvent.Complaint => $"{mail} was reported as unwanted on {day} ({feedback.Type ?? "no type"})"
                + (feedback.Possible ? ", possibly by this address." : "."),
            _ when bySes => $"SES itself refused it on {day} ({subType}), and will until it is taken off there: "
                + $"aws sesv2 delete-suppressed-destination --email-address '{listed}'",
            SesEvent.Subscription => $"Unsubscribed from everything on {day}.",
            _ when reason == Reason.SoftBounces => $"Mail failed time and again, last on {day} ({subType}){said}",
            _ => $"{mail} bounced for good on {day} ({subType}){said}",
        };
    }
}

/// <summary>So many of one kind in one hour or day: what the stores roll up. At is where that begins, UTC.</summary>
sealed record Count(DateTimeOffset At, string Kind, string Type, string SubType, bool ToSimulator, long Number) {
    /// <summary>The name of a roll-up. What SES says is cut to 64 characters, none of them halved, and to what cannot be taken for the bar.</summary>
    public static string KeyOf(Feedback feedback, string hourOrDay) => string.Join('|', feedback.At.UtcDateTime.ToString(hourOrDay,
        CultureInfo.InvariantCulture), Part(feedback.Kind), Part(feedback.Type), Part(feedback.SubType)) + (feedback.ToSimulator ? "|simulator" : "");
    static string Part(string? text) => text is null ? ""
        : text[..(text.Length < 65 ? text.Length : char.IsHighSurrogate(text[63]) ? 63 : 64)].Replace('|', '/');
    public static Count Of(string key, long number) => key.Split('|') is var parts && parts[0] is { Length: 10 } day
        ? Of(parts, day + "T00", number) : Of(parts, parts[0], number);
    static Count Of(string[] parts, string hour, long number) => new(DateTimeOffset.ParseExact(hour, Hour, CultureInfo.InvariantCulture,
        DateTimeStyles.AssumeUniversal), parts[1], parts[2], parts[3], parts.Length > 4, number);
    public const string Hour = "yyyy-MM-dd'T'HH", Day = "yyyy-MM-dd";
}

/// <summary>Rates as SES counts them, near enough: docs.aws.amazon.com/ses/latest/dg/monitor-sender-reputation.html
/// A rate is null, unknown, while its denominator (Mails, Deliveries) is not collected.</summary>
sealed record Rates(long Sends, long Deliveries, long Bounces, long Complaints) {
    /// <summary>Where SES advises, puts the account under review, and pauses it; and how many mails it takes to say so.</summary>
    public static readonly double[] BounceLines = [0.02, 0.05, 0.10], ComplaintLines = [0.0005, 0.001, 0.005];
    public const int Enough = 200;
    /// <summary>Mails that were sent; where Send is not collected (of all), those that were delivered or bounced for good.</summary>
    public long Mails => Math.Max(Sends, Deliveries > 0 ? Deliveries + Bounces : 0);
    public double? BounceRate => Mails > 0 ? (double)Bounces / Mails : null;
    public double? ComplaintRate => Deliveries > 0 ? (double)Complaints / Deliveries : null;
    /// <summary>Hard bounces and complaints, without what SES's own list stopped, the simulator's, and not-spam; and those before the first
    /// Send or Delivery, which nobody collected then. Oldest first.</summary>
    public static Rates Of(IEnumerable<Count> all) {
        Count[] counts = [.. all.Where(count => !count.ToSimulator)];
        DateTimeOffset First(params string[] kinds) => Array.Find(counts, count => kinds.Contains(count.Kind))?.At ?? default;
        var (sent, delivered) = (First("Send", SesEvent.Delivery), First(SesEvent.Delivery));
        return counts.Aggregate(new Rates(0, 0, 0, 0), (sum, count) => count switch {
            { Kind: "Send" } => sum with { Sends = sum.Sends + count.Number },
            { Kind: SesEvent.Delivery } => sum with { Deliveries = sum.Deliveries + count.Number },
            _ when SesEvent.IsFromList(count.SubType) => sum,
            { Kind: SesEvent.Bounce, Type: "Permanent" } when count.At >= sent => sum with { Bounces = sum.Bounces + count.Number },
            { Kind: SesEvent.Complaint, Type: not "not-spam" } when count.At >= delivered => sum with { Complaints = sum.Complaints + count.Number },
            _ => sum,
        });
    }
}

// ---- 7. Journal -------------------------------------------------------------------------------------------------
// The truth: one JSON object a line, and nothing is answered before it is on disk. LiteDB cannot promise that (its Commit
// may return before anything is written), so it follows the journal and is rebuilt from it whenever it is in doubt.
// A position in it is a number: the segment's, times 2^32, plus a byte offset.

/// <summary>A change of state, as it stands in the journal: At is when we learned of it, and one of the others is set.</summary>
sealed record Entry([property: JsonPropertyName("at")] DateTimeOffset At, [property: JsonPropertyName("message")] Envelope? Message = null,
    [property: JsonPropertyName("suppress")] ManualSuppression? Suppress = null, [property: JsonPropertyName("lift")] Lift? Lift = null,
    [property: JsonPropertyName("forget")] Forget? Forget = null, [property: JsonPropertyName("refused")] RefusedBody? Refused = null) {
    [JsonIgnore] public SesEvent Event { get; } = Message is null ? SesEvent.None : SesEvent.Read(Message);
    /// <summary>The addresses whose suppression this entry may change.</summary>
    [JsonIgnore]
    public IEnumerable<string> Addresses => Suppress is not null ? [Suppress.Address] : Lift is not null ? [Lift.Address]
        : Forget is not null ? [Forget.Alias] : Event.Feedback.Select(feedback => feedback.Address);
    /// <summary>The line, with its line feed.</summary>
    public byte[] ToLine() => [.. JsonSerializer.SerializeToUtf8Bytes(this, SnsJson.Lines.Entry), (byte)'\n'];
    /// <summary>Null when the line is none of ours.</summary>
    public static Entry? Read(ReadOnlySpan<byte> line) {
        try { return JsonSerializer.Deserialize(line, SnsJson.Default.Entry); } catch (JsonException) { return null; }
    }
}

/// <summary>An address suppressed by hand or by an import, which may know a reason and since when.</summary>
sealed record ManualSuppression([property: JsonPropertyName("address")] string Address, [property: JsonPropertyName("reason")] string Reason,
    [property: JsonPropertyName("note")] string? Note = null, [property: JsonPropertyName("since")] DateTimeOffset? Since = null);
/// <summary>A suppression lifted by hand.</summary>
sealed record Lift([property: JsonPropertyName("address")] string Address);
/// <summary>A person was forgotten: what stays known of the address, under a keyed hash of it (null: nothing).</summary>
sealed record Forget([property: JsonPropertyName("alias")] string Alias, [property: JsonPropertyName("known")] Known? Known = null);
/// <summary>A body that was not believed, set down before it is thrown away where it lay.</summary>
sealed record RefusedBody([property: JsonPropertyName("why")] string Why, [property: JsonPropertyName("body")] string Body);
/// <summary>Kept: on disk, and look-ups know. Busy: too much is waiting. Unwritable: not now.</summary>
enum Commit { Kept, Busy, Unwritable }

/// <summary>The journal's disk, and the seam at which tests make it fail.</summary>
partial class Disk {
    public virtual void Write(SafeFileHandle file, IReadOnlyList<ReadOnlyMemory<byte>> lines, long offset) => RandomAccess.Write(file, lines, offset);
    public virtual void Flush(SafeFileHandle file) => RandomAccess.FlushToDisk(file);
    /// <summary>After a failed flush nobody knows what is on disk, so nothing may be acknowledged on that file again.</summary>
    public virtual void Die(Exception reason) => Environment.FailFast("FeedbackReceiver: the journal could not be flushed", reason);
    /// <summary>The bytes that are left on a folder's disk.</summary>
    public virtual long Free(string folder) => new DriveInfo(folder).AvailableFreeSpace;
    /// <summary>Opens or creates a file, and its folder, for its owner only. The name, too, survives a power cut.</summary>
    public static FileStream Open(string path, FileShare share) {
        const UnixFileMode owner = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        Directory.CreateDirectory(folder, owner | UnixFileMode.UserExecute);
        var file = new FileStream(path, new FileStreamOptions {
            Mode = FileMode.OpenOrCreate, Access = FileAccess.ReadWrite, Share = share, BufferSize = 0, UnixCreateMode = owner,
        });
        try { FlushFolder(folder); } catch { file.Dispose(); throw; }
        return file;
    }
    /// <summary>What was created, renamed or deleted in the folder stays so after a power cut.</summary>
    public static void FlushFolder(string folder) {
        int directory = open(Path.GetFullPath(folder), 0);
        if (directory < 0 || (fsync(directory) | close(directory)) != 0) throw new IOException("cannot flush " + folder);
    }

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)] private static partial int open(string path, int flags);
    [LibraryImport("libc")] private static partial int fsync(int file);
    [LibraryImport("libc")] private static partial int close(int file);
}

/// <summary>Append-only. One writer thread takes whatever waits, writes it at once, flushes once, and only then answers.</summary>
sealed class Journal : IDisposable {
    sealed class Pending(Entry? entry, ReadOnlyMemory<byte> line, Func<Entry>? make = null) : TaskCompletionSource<Commit>(TaskCreationOptions.RunContinuationsAsynchronously) {
        public Entry? Entry = entry; // null: a blank line, to try the disk
        public ReadOnlyMemory<byte> Line = line;
        public readonly Func<Entry>? Make = make;
    }

    const int SegmentBytes = 64 << 20, MaxWaiting = 10_000;
    public const long Start = 1L << 32; // the position of the first entry
    readonly Disk _disk;
    readonly Log _log;
    readonly FileStream _lock;
    readonly Thread _writer;
    readonly Channel<Pending> _queue = Channel.CreateBounded<Pending>(
        new BoundedChannelOptions(MaxWaiting) { SingleReader = true, AllowSynchronousContinuations = true });
    FileStream _segment;
    long _end;
    bool _rolls;
    volatile bool _writable = true, _dead;

    public string Folder { get; }
    /// <summary>Held while <see cref="End"/> moves and OnKept runs.</summary>
    public Lock Gate { get; } = new();
    /// <summary>Called in order, after the flush and before the answers.</summary>
    public Action<Entry>? OnKept { get; set; }
    /// <summary>Everything before it is on disk.</summary>
    public long End { get { lock (Gate) return _end; } }
    /// <summary>Told of every flush: how many entries it kept, and how long write and flush took. On the writer's thread.</summary>
    public event Action<int, TimeSpan>? Flushed;
    public int Waiting => _queue.Reader.Count;
    /// <summary>Entries kept since the start.</summary>
    public long Kept { get; private set; }
    /// <exception cref="Refusal">Another process holds the folder, or it cannot be used.</exception>
    public Journal(Disk disk, IOptions<ReceiverOptions> options, Log log) {
        (_disk, _log, Folder) = (disk, log, options.Value.JournalDirectory);
        string holder = Path.Combine(Folder, "holder");
        try {
            _lock = Disk.Open(Path.Combine(Folder, "lock"), FileShare.None);
            File.WriteAllText(holder, Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
            int last = Segments(Folder).DefaultIfEmpty(1).Max();
            if (Enumerable.Range(1, last - 1).Except(Segments(Folder)).FirstOrDefault() is > 0 and var gap)
                throw new Refusal($"Journal:Directory: {PathOf(Folder, gap)} is missing: restore it");
            _segment = Disk.Open(PathOf(Folder, last), FileShare.ReadWrite);
            CutTornTail((long)last << 32);
        } catch (IOException e) when (_lock is null && (e.HResult & 0xFFFF) is 11 or 35 && File.Exists(holder)) { // EAGAIN: locked
            throw new Refusal($"process {File.ReadAllText(holder)} holds the journal in {Folder}: one receiver a folder");
        } catch (Exception e) when (e is IOException or UnauthorizedAccessException) {
            throw new Refusal("Journal:Directory: " + e.Message);
        }
        _writer = new Thread(WriteUntilClosed) { Name = "journal", IsBackground = true };
        _writer.Start();
    }

    public static string PathOf(string folder, int segment) => Path.Combine(folder, $"{segment:00000000}.ndjson");
    public static IEnumerable<int> Segments(string folder) => Directory.EnumerateFiles(folder, "*.ndjson")
        .Select(path => int.TryParse(Path.GetFileNameWithoutExtension(path), out int number) ? number : 0).Where(number => number > 0);
    // A crash can leave half a line, or zeros, that nobody was told was kept. What has its end and no zeros was not torn, but damaged.
    void CutTornTail(long start) {
        long sound = start, read = start, end = _end = start + _segment.Length;
        bool whole = true;
        foreach (var (line, next) in ReadFrom(start)) {
            if (next == read) break;
            read = next;
            whole = line.IsEmpty ? whole : !line.Span.Contains((byte)0) // blank: IsWritableAsync's
                && (line.Span.StartsWith("{\"at\":"u8) || line.Span.EndsWith("}}"u8));
            if (whole) sound = next;
        }
        if (sound == end) return;
        // A first line that was torn begins as a line does, or with zeros; anything else is not ours to cut.
        Span<byte> first = [0];
        RandomAccess.Read(_segment.SafeFileHandle, first, 0);
        if ((sound == start && first[0] is not ((byte)'{' or (byte)' ' or 0)) || end - sound > SegmentBytes / 2)
            throw new Refusal(_segment.Name + " is no journal: restore it, or move it away");
        RandomAccess.SetLength(_segment.SafeFileHandle, sound - start);
        RandomAccess.FlushToDisk(_segment.SafeFileHandle);
        _log.TornTail(end - sound);
        _end = sound;
    }
    /// <summary>Completes once the entry is on disk and look-ups know of it, or tells why not.</summary>
    public Task<Commit> AppendAsync(Entry entry) => Enqueue(new Pending(entry, entry.ToLine()));
    /// <summary>The same of an entry that is made, on the writer's thread, once all before it is kept and known; nothing comes between.</summary>
    public Task<Commit> AppendAsync(Func<Entry> make) => Enqueue(new Pending(null, default, make));
    /// <summary>Whether entries can be kept now. After a failure this tries, with a blank line of 4 KiB.</summary>
    public async Task<bool> IsWritableAsync() => _writable || await Enqueue(new Pending(null, Encoding.ASCII.GetBytes("\n".PadLeft(4096)))) == Commit.Kept;

    Task<Commit> Enqueue(Pending pending) => !_dead && _queue.Writer.TryWrite(pending) ? pending.Task
        : Task.FromResult(_queue.Reader.Count < MaxWaiting ? Commit.Unwritable : Commit.Busy);

    void WriteUntilClosed() {
        var batch = new List<Pending>();
        while (_queue.Reader.WaitToReadAsync().AsTask().GetAwaiter().GetResult()) {
            // What is made stands alone in its batch, for it is made from what the one before left known.
            while (batch.Count < MaxWaiting && _queue.Reader.TryPeek(out var next) && (next.Make is null || batch.Count == 0) && _queue.Reader.TryRead(out next)) {
                batch.Add(next);
                if (next.Make is null) continue;
                next.Line = (next.Entry = next.Make()).ToLine();
                break;
            }
            var commit = _dead ? Commit.Unwritable : Keep(batch);
            foreach (var pending in batch) pending.SetResult(commit);
            batch.Clear();
        }
    }

    Commit Keep(List<Pending> batch) {
        long began = Stopwatch.GetTimestamp();
        try {
            try {
                if ((uint)_end >= SegmentBytes || _rolls) Roll();
                _disk.Write(_segment.SafeFileHandle, batch.ConvertAll(pending => pending.Line), (uint)_end);
            } catch (Exception full) when (full is IOException or UnauthorizedAccessException) {
                // Takes the half-written batch back, so that the next try begins on a clean line.
                RandomAccess.SetLength(_segment.SafeFileHandle, (uint)_end);
                if (_writable) _log.Unwritable(full.HResult);
                _writable = false;
                return Commit.Unwritable;
            }
            _disk.Flush(_segment.SafeFileHandle);
        } catch (Exception reason) {
            (_dead, _writable) = (true, false);
            _disk.Die(reason);
            return Commit.Unwritable;
        }
        lock (Gate)
            foreach (var pending in batch) {
                (_end, Kept) = (_end + pending.Line.Length, Kept + (pending.Entry is null ? 0 : 1));
                if (pending.Entry is not null) OnKept?.Invoke(pending.Entry);
                _rolls |= pending.Entry?.Forget is not null; // what stands before it is rewritten, in segments that are closed
            }
        _writable = true;
        Flushed?.Invoke(batch.Count, Stopwatch.GetElapsedTime(began));
        return Commit.Kept;
    }

    void Roll() {
        int next = (int)(_end >> 32) + 1;
        var full = _segment;
        _segment = Disk.Open(PathOf(Folder, next), FileShare.ReadWrite);
        full.Dispose();
        lock (Gate) _end = (long)next << 32;
        _rolls = false;
    }
    /// <summary>The lines from a position on, for ever, each with the position after it. Empty stands for a blank line, and for
    /// none yet: then the position is as before. A line is good until the next.</summary>
    public IEnumerable<(ReadOnlyMemory<byte> Line, long Next)> ReadFrom(long position) {
        byte[] buffer = new byte[256 << 10];
        for (int segment = 0; ; position = (segment + 1L) << 32) {
            segment = Segments(Folder).Where(number => number >= position >> 32).Min();
            position = Math.Max(position, (long)segment << 32);
            using var file = File.OpenHandle(PathOf(Folder, segment), share: FileShare.ReadWrite);
            for (int filled = 0, from = 0; ; (filled, from) = (filled - from, 0)) {
                if (filled == buffer.Length) Array.Resize(ref buffer, filled * 2);
                long end = End, at = (uint)position + filled, limit = segment < end >> 32 ? RandomAccess.GetLength(file) : (uint)end;
                int read = RandomAccess.Read(file, buffer.AsSpan(filled, (int)Math.Clamp(limit - at, 0, buffer.Length - filled)), at);
                if (read == 0 && segment < end >> 32) break;
                if (read == 0) yield return (default, position);
                filled += read;
                for (int length; (length = buffer.AsSpan(from..filled).IndexOf((byte)'\n')) >= 0; from += length + 1) {
                    var line = buffer.AsMemory(from, length);
                    yield return (line.Span.ContainsAnyExcept((byte)' ') ? line : default, position += length + 1);
                }
                buffer.AsSpan(from..filled).CopyTo(buffer);
            }
        }
    }
    /// <summary>Answers what waits, then lets go of the folder.</summary>
    public void Dispose() {
        _queue.Writer.TryComplete();
        _writer.Join();
        _segment.Dispose();
        _lock.Dispose();
    }
}

// ---- 8. Store ---------------------------------------------------------------------------------------------------
// What is known of each address lives in memory: look-ups read it, the journal's writer keeps it true. One follower thread
// copies the journal into LiteDB for history and counts, with its position in the transaction of the events it covers.

/// <summary>What is kept. Once CommitAsync says Kept, the entry outlives a crash and FindAsync sees it; ids make all of it
/// idempotent. Addresses are keys (<see cref="Address.Key"/>); null means that it cannot be told now, and what cannot be null throws
/// <see cref="Unavailable"/>. What only one extra asks for, it adds.</summary>
partial interface IFeedbackStore : IHostedService {
    Task<Commit> CommitAsync(Entry entry);
    ValueTask<Known?> FindAsync(string address);
    Task<bool> IsWritableAsync();
    /// <summary>Whether, within two seconds, everything committed before can be read back by what follows.</summary>
    Task<bool> CaughtUpAsync();
    /// <summary>Events with their sort keys, newest first, as they are read: a few at a time, however many there are.</summary>
    IAsyncEnumerable<(Guid Key, Feedback Feedback)> EventsAsync(EventQuery query, CancellationToken cancellation);
    /// <summary>The roll-ups from the hour or the day of `since` on, oldest first.</summary>
    Task<IReadOnlyList<Count>> CountsAsync(bool hourly, DateTimeOffset since);
    Task<StoreState> StateAsync();
    /// <summary>What is known of each of several addresses, in their order.</summary>
    async ValueTask<Known[]?> FindAsync(IReadOnlyList<string> addresses) {
        var known = new Known[addresses.Count];
        for (int i = 0; i < known.Length; i++) if (await FindAsync(addresses[i]) is { } found) known[i] = found; else return null;
        return known;
    }
}

/// <summary>The store cannot be read now: 503, by <see cref="Problem.AnswerAsync"/>.</summary>
sealed class Unavailable() : IOException("the store cannot be read now");

/// <summary>A suppression that began, changed (Before and Reason) or ended (Reason is null), numbered in the order of what happened.</summary>
sealed record Change(long Number, string Address, string? Before, string? Reason, DateTimeOffset At, string? Event);

/// <summary>How the store is: its journal's bytes, how many of them wait to be copied, for how long, and how many entries that is (null:
/// not known), how many addresses are suppressed, messages unread, what each topic was seen to do, and other findings.</summary>
sealed record StoreState(string Name, long JournalBytes, long BehindBytes, TimeSpan Behind, long Suppressed, long Unread,
    IReadOnlyList<TopicState> Topics, IReadOnlyList<string> Findings, long? BehindEntries = null);

/// <summary>What needs the operator's hand, how badly (error, warning, hint), and the command that mends it. An extra that may find
/// something registers a Func&lt;Finding?&gt;.</summary>
sealed record Finding(string Code, string Severity, string Says, string Mend);
/// <summary>How something that an extra does besides is going, and how far behind it is. The extra registers a Func&lt;Errand&gt;.</summary>
sealed record Errand(string Name, string State, double LagSeconds);

/// <summary>What was seen of a topic, and when last. Doubled: one event came in both SES formats, of which only event publishing has tags.</summary>
sealed record TopicState(string TopicArn, DateTimeOffset? ConfirmedAt, DateTimeOffset? UnsubscribedAt, DateTimeOffset? ValidatedAt,
    DateTimeOffset? LastAt, string? SignatureVersion, DateTimeOffset? DoubledAt);

/// <summary>What is known of each address, as bytes in a few large arrays: so a garbage collector has nothing to follow. As a million
/// objects each collection in the background marked them for 0.4 s, for which a native executable stands still
/// (https://github.com/dotnet/runtime/issues/132064).</summary>
sealed class KnownAddresses {
    readonly KnownPart[] _parts = [.. Enumerable.Range(0, 256).Select(_ => new KnownPart())];
    (KnownPart, UInt128) Find(string address) {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes]; // so long that no two addresses share it
        SHA256.HashData(MemoryMarshal.AsBytes(address.AsSpan()), hash);
        return (_parts[hash[^1]], MemoryMarshal.Read<UInt128>(hash));
    }
    /// <summary>Null when nothing is known, and to know nothing any more.</summary>
    public Known? this[string address] {
        get {
            var (part, key) = Find(address);
            lock (part) return part.Find(key);
        }
        set {
            var (part, key) = Find(address);
            lock (part) if (value is null) part.Forget(key); else part.Keep(key, address, value);
        }
    }
    public int Suppressed => _parts.Sum(part => part.Suppressed);
    /// <summary>Every address of which something is known, in no order.</summary>
    public IEnumerable<(string Address, bool Suppressed)> Addresses => _parts.SelectMany(part => { lock (part) return part.Addresses(); });
}

/// <summary>One array of them. Its owner locks it.</summary>
sealed class KnownPart {
    // Bytes of the address, and of what is known, as JSON, behind it.
    readonly record struct Place(int At, int Address, int Known, bool Suppressed) { public int End => At + Address + Known; }
    readonly Dictionary<UInt128, Place> _places = [];
    byte[] _bytes = [];
    int _end, _kept;
    public int Suppressed { get; private set; }
    public Known? Find(UInt128 key) => !_places.TryGetValue(key, out var place) ? null
        : JsonSerializer.Deserialize(_bytes.AsSpan(place.At + place.Address, place.Known), SnsJson.Default.Known);
    public (string, bool)[] Addresses() => [.. _places.Values.Select(place => (Encoding.UTF8.GetString(_bytes, place.At, place.Address), place.Suppressed))];
    public void Forget(UInt128 key) {
        if (!_places.Remove(key, out var place)) return;
        _kept -= place.End - place.At;
        Suppressed -= place.Suppressed ? 1 : 0;
    }
    public void Keep(UInt128 key, string address, Known known) {
        byte[] text = Encoding.UTF8.GetBytes(address), json = JsonSerializer.SerializeToUtf8Bytes(known, SnsJson.Lines.Known);
        if (_bytes.Length - _end < text.Length + json.Length) Tidy(text.Length + json.Length);
        Forget(key); // last, for all before it may find no memory
        var place = _places[key] = new(_end, text.Length, json.Length, known.Suppressed);
        text.CopyTo(_bytes, _end);
        json.CopyTo(_bytes, _end + text.Length);
        (_end, _kept) = (place.End, _kept + text.Length + json.Length);
        Suppressed += place.Suppressed ? 1 : 0;
    }
    // Only what is still known goes on, into an array with room for half as much again.
    void Tidy(int room) {
        var (bytes, places) = (new byte[(_kept + room) * 3 / 2], _places.ToArray());
        _end = 0;
        foreach (var (key, place) in places) {
            _bytes.AsSpan(place.At..place.End).CopyTo(bytes.AsSpan(_end));
            _places[key] = place with { At = _end };
            _end += place.End - place.At;
        }
        _bytes = bytes;
    }
}

sealed partial class LiteDbStore(Journal journal, IOptions<ReceiverOptions> options, TimeProvider clock, Log log) : IFeedbackStore {
    const int Batch = 256, CheckpointBytes = 16 << 20, BusyPerSecond = 2000;
    readonly KnownAddresses _known = new();
    readonly FeedbackFile _file = new(options.Value.Feedback.Split('=', ';').ElementAtOrDefault(1) ?? "", clock, log);
    readonly AutoResetEvent _wake = new(false);
    readonly ManualResetEventSlim _stop = new();
    readonly TaskCompletionSource _loaded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    readonly Dictionary<long, int> _failures = []; // how often LiteDB failed at a position
    Thread? _follower;
    readonly long _began = clock.GetUtcNow().Ticks;
    long _held; // what the file held once; while it holds less, it is being built anew
    long _told, _waiting; // since when what the follower reads waits; 0: it has read nothing
    (long At, long? Kept) _copied; // up to where, and which of the entries kept since the start that is; null: nobody counted
    /// <summary>Begins to follow. After two seconds messages are let in, though look-ups say 503 until all is read.</summary>
    /// <exception cref="Refusal">feedback.db knows of more than the journal holds.</exception>
    public async Task StartAsync(CancellationToken cancellationToken) {
        if (!options.Value.Feedback.StartsWith("Filename=", OrdinalIgnoreCase) || _file.Path.Length == 0)
            throw new Refusal("ConnectionStrings:Feedback must be Filename=<path>");
        FinishForgetting();
        _file.Open();
        _held = journal.End;
        if (_file.Applied > journal.End) throw new Refusal($"{_file.Path} knows of more than the journal in {journal.Folder} holds: "
            + "restore the journal, or move the file away to begin anew");
        journal.OnKept = entry => {
            if (_loaded.Task.IsCompleted) Apply(entry, journal.End);
            _wake.Set();
        };
        _follower = new Thread(Follow) { Name = "follower", IsBackground = true };
        _follower.Start();
        await Task.WhenAny(_loaded.Task, Task.Delay(2000, cancellationToken));
    }

    public Task StopAsync(CancellationToken cancellationToken) {
        journal.Dispose();
        _stop.Set();
        _wake.Set();
        _follower?.Join();
        return Task.CompletedTask;
    }
    /// <summary>Builds the file again from the journal, by today's settings.</summary>
    public async Task RebuildAsync() {
        _file.MoveAside("rebuild");
        await StartAsync(CancellationToken.None);
        while (!await CaughtUpAsync()) if (_keyless is { } why) throw new Refusal(why);
        await StopAsync(CancellationToken.None);
        Console.WriteLine($"{_file.Path} is rebuilt: {_known.Suppressed} addresses suppressed");
    }

    public Task<Commit> CommitAsync(Entry entry) => journal.AppendAsync(entry);
    public Task<bool> IsWritableAsync() => journal.IsWritableAsync();
    public ValueTask<Known?> FindAsync(string address) {
        bool loaded = _loaded.Task.IsCompleted; // asked first: a miss counts only if everything was there before it
        var known = _known[Alias(address)] ?? (_forgetKey is null ? null : _known[Alias(address)]); // forgotten just now
        return new(known is not null && (loaded || known.Suppressed) ? known : loaded ? Known.Nothing : null);
    }
    /// <summary>One collection's newest against the others', until all are read.</summary>
    public async IAsyncEnumerable<(Guid Key, Feedback Feedback)> EventsAsync(EventQuery query, [EnumeratorCancellation] CancellationToken cancellation) {
        int opened = _file.Opened;
        if (query.Address is null) await WholeAsync();
        else await CaughtUpAsync();
        var heads = _file.Newest(query).Select(events => events.GetEnumerator()).Where(head => head.MoveNext()).ToList();
        while (heads.MaxBy(head => head.Current.Key) is { } newest) {
            cancellation.ThrowIfCancellationRequested();
            if (_file.Opened != opened) throw new Unavailable(); // what is read now may lack what stood there before
            if (query.Matches(newest.Current.Feedback)) yield return newest.Current;
            if (!newest.MoveNext()) heads.Remove(newest);
        }
        if (_file.Opened != opened) throw new Unavailable();
    }
    // Of a file that is being built anew, what is counted or listed would be less than there is.
    async Task WholeAsync() { if (!await CaughtUpAsync() && _file.Applied < Volatile.Read(ref _held)) throw new Unavailable(); }
    public async Task<IReadOnlyList<Count>> CountsAsync(bool hourly, DateTimeOffset since) {
        await WholeAsync();
        return _file.Counts(hourly ? "hourly" : "daily", since.UtcDateTime.ToString(hourly ? Count.Hour : Count.Day, CultureInfo.InvariantCulture));
    }
    public Task<StoreState> StateAsync() {
        (long At, long? Behind) counted;
        lock (journal.Gate) counted = (_copied.At, journal.Kept - _copied.Kept);
        long end = journal.End, applied = _file.Applied; // afterwards, so it is less only where the file was moved aside
        long Bytes(long position) => Journal.Segments(journal.Folder).Where(segment => segment < position >> 32)
            .Sum(segment => new FileInfo(Journal.PathOf(journal.Folder, segment)).Length) + (uint)position;
        var (unread, topics) = _file.State();
        return Task.FromResult(new StoreState("LiteDB", Bytes(end), Bytes(end) - Bytes(applied),
            TimeSpan.FromTicks(applied < end && Volatile.Read(ref _waiting) is > 0 and var since ? clock.GetUtcNow().Ticks - since : 0),
            _known.Suppressed, unread, topics, [], counted.At <= applied ? counted.Behind : null));
    }
    public async Task<bool> CaughtUpAsync() {
        long target = journal.End;
        for (var patience = Stopwatch.StartNew(); _file.Applied < target; await Task.Delay(2)) if (patience.ElapsedMilliseconds > 2000) return false;
        return true;
    }
    // A change has a number that a replay gives it again: an entry's lie before its end, where they have more room than they take.
    void Apply(Entry entry, long end) {
        long number = end - entry.Event.Feedback.Count;
        foreach (var feedback in entry.Event.Feedback)
            Update(feedback.Address, ++number, entry.At, known => Judgement.Of(feedback, known, options.Value.SoftBounceLimit));
        if (entry.Suppress is { } manual) Update(manual.Address, end, entry.At, known => Judgement.Of(manual, entry.At, known));
        if (entry.Lift is { } lift) Update(lift.Address, end, entry.At, known => Judgement.Lifted(entry.At, known));
        if (entry.Forget?.Known is { } kept) Know(entry.Forget.Alias, kept);
    }
    // Without their key nobody could be told from those who were forgotten, so no look-up is answered.
    void Know(string address, Known known) => _known[address] = _forgetKey is not null || !address.StartsWith("forgotten:", Ordinal) ? known
        : throw new FileNotFoundException(_keyless = ForgetKeyPath(journal.Folder) + " is missing or damaged: restore it, and start again");
    string? _keyless; // why look-ups will not be answered

    void Update(string address, long number, DateTimeOffset at, Func<Known, Known> judge) {
        var before = _known[address = Alias(address)] ?? Known.Nothing;
        if (judge(before) is var after && ReferenceEquals(before, after)) return;
        if (before.Reason != after.Reason) Changing(new(number, address, before.Reason, after.Reason, at, after.Event)); // before it can be seen
        _known[address] = after;
        Changed(before, after);
    }
    // Of a forgotten person only a keyed hash is known. There is no key while nobody was forgotten.
    string Alias(string address) => _forgetKey is { } key && Forgotten(key, address) is var alias && _known[alias] is not null ? alias : address;
    static string Forgotten(byte[] key, string address) => "forgotten:" + Convert.ToHexStringLower(HMACSHA256.HashData(key, Encoding.UTF8.GetBytes(address)));
    byte[]? _forgetKey = ForgetKeyIn(journal.Folder);
    /// <summary>The key under which a journal's forgotten people are known; null when there is none that is whole.</summary>
    public static byte[]? ForgetKeyIn(string folder) =>
        File.Exists(ForgetKeyPath(folder)) && File.ReadAllBytes(ForgetKeyPath(folder)) is { Length: 32 } key ? key : null;
    public static string ForgetKeyPath(string folder) => Path.Combine(folder, "forget.key");
    partial void FinishForgetting(); // extras/Lists.cs
    partial void Changed(Known before, Known after);
    partial void LoadChanges(); // extras/Hook.cs
    partial void Changing(Change change);

    void Follow() {
        while (!_stop.IsSet)
            try {
                if (!_loaded.Task.IsCompleted) Load();
                CopyUntilStopped();
            } catch (Exception e) { Recover(e); }
        try { _file.Close(); } catch (Exception e) { log.FollowerFailed(e.GetType().Name, e.Message); }
    }
    // What LiteDB holds, then the entries after it: many times faster than LiteDB can take them.
    void Load() {
        LoadChanges();
        foreach (var (address, known) in _file.Suppressions()) Know(address, known);
        long applied = _file.Applied, ahead = 0;
        foreach (var (line, next) in journal.ReadFrom(applied)) {
            Tell("reading the journal", next);
            if (!line.IsEmpty) ahead++;
            if (!line.IsEmpty && Entry.Read(line.Span) is { } entry) Apply(entry, next);
            lock (journal.Gate) if (next == journal.End && _loaded.TrySetResult()) _copied = (applied, journal.Kept - ahead);
            if (_loaded.Task.IsCompleted || _stop.IsSet) return;
        }
    }

    void CopyUntilStopped() {
        var batch = new List<(long At, Entry? Entry, bool Untaken)>(); // what LiteDB would not take is unread there, though what it led to is kept
        long at = Math.Max(_file.Applied, Journal.Start), started = 0, kept = 0, from = 0;
        foreach (var (line, next) in journal.ReadFrom(at)) {
            if (_stop.IsSet) return;
            if (batch.Count == 0) (started, kept, from) = (clock.GetTimestamp(), journal.Kept, _file.Applied);
            if (!line.IsEmpty && _failures.GetValueOrDefault(at) is var failed) batch.Add((at, failed > 4 ? null : Entry.Read(line.Span), failed > 2));
            if (batch is [{ Entry: { } oldest }]) Volatile.Write(ref _waiting, Math.Max(_began, oldest.At.UtcTicks));
            at = next;
            bool careful = _failures.Keys.Any(failed => at > failed && at <= failed + (1 << 20)); // one by one where a batch failed
            if (batch.Count < (careful ? 1 : Batch) && at < journal.End) continue;
            if (at == _file.Applied) {
                if (!_wake.WaitOne(TimeSpan.FromSeconds(5))) _file.Checkpoint(1);
                continue;
            }
            _file.Write(batch, at, address => _known[address = Alias(address)] is { } known ? (address, known) : null);
            lock (journal.Gate) _copied = (at, at == journal.End ? journal.Kept : _copied.At == from ? _copied.Kept + batch.Count : null);
            _file.Checkpoint(CheckpointBytes);
            Volatile.Write(ref _waiting, 0);
            batch.Clear();
            Tell("copying the journal", at);
            // While acknowledgements are busy, LiteDB gets a tenth of a core, not half the machine.
            double took = clock.GetElapsedTime(started).TotalMilliseconds;
            if ((journal.Kept - kept) * 1000 > BusyPerSecond * took) _stop.Wait((int)Math.Min(500, took * 9));
        }
    }
    void Tell(string what, long at) {
        if (clock.GetElapsedTime(_told).TotalSeconds < 5 || journal.End is var end && at >= end) return;
        _told = clock.GetTimestamp();
        log.Working(what, at >> 32, end >> 32, (uint)at >> 20);
    }
    // A full disk mends itself: wait. Else open again and go on one by one. If the same entry fails again, the file is at fault
    // and is built anew; if it fails there too, it is set down as unread.
    void Recover(Exception reason) {
        bool waits = reason is IOException or UnauthorizedAccessException or OutOfMemoryException;
        try {
            Volatile.Write(ref _held, Math.Max(_held, _file.Applied));
            bool wasOpen = _file.Abandon();
            if (waits || wasOpen) log.FollowerFailed(reason.GetType().Name, reason.Message); // else it was let go of before, and that was told
            if (!waits && wasOpen && ++CollectionsMarshal.GetValueRefOrAddDefault(_failures, Math.Max(_file.Applied, Journal.Start), out _) == 2) _file.MoveAside("damaged");
            _file.Open();
        } catch (Exception e) {
            log.FollowerFailed(e.GetType().Name, e.Message);
            waits = true;
        }
        _stop.Wait(waits ? 5000 : 100);
    }
}

/// <summary>feedback.db: LiteDB as <see cref="LiteDbStore"/> needs it, one caller at a time, since 5.0.20 breaks under concurrent
/// readers. Times are Int64 milliseconds UTC; `mail`, `tags` and `known` are JSON text.</summary>
sealed partial class FeedbackFile(string path, TimeProvider clock, Log log) {
    const int Schema = 2;
    // The collections of events, and what each calls the time.
    static readonly (string Name, string Time)[] WithEmail =
        [("email_bounces", "bounced_at"), ("email_complaints", "complained_at"), ("email_events", "at")];
    readonly Lock _gate = new();
    readonly string _mark = path + ".open", _logPath = System.IO.Path.ChangeExtension(path, null) + "-log" + System.IO.Path.GetExtension(path);
    LiteDatabase? _database;
    FileStream? _data, _pages;
    string? _boot;
    long _applied;

    public string Path => path;
    /// <summary>How often: between two times it may have lost what it held.</summary>
    public int Opened { get; private set; }
    /// <summary>The journal's position up to which it stands in the file.</summary>
    public long Applied { get { lock (_gate) return _applied; } }
    LiteDatabase Database => _database ?? throw new InvalidOperationException(path + " is not open");
    /// <summary>Opens or creates the file; what cannot be trusted is moved aside first, never deleted.</summary>
    public void Open() {
        lock (_gate)
            try { OpenDatabase(); } catch (Exception e) when (e is not (IOException or UnauthorizedAccessException)) {
                Abandon();
                MoveAside(e.Message);
                OpenDatabase();
            }
    }

    void OpenDatabase() {
        if (!File.Exists(path) && File.Exists(_logPath)) MoveAside("log without file");
        _data = Disk.Open(path, FileShare.None); // apart, so that Abandon lets go of one without the other
        _pages = Disk.Open(_logPath, FileShare.None);
        // Nothing of it is flushed before a clean stop, so after a power cut (another boot) its pages are anybody's guess.
        _boot = File.Exists("/proc/sys/kernel/random/boot_id") ? File.ReadAllText("/proc/sys/kernel/random/boot_id") : "";
        if (File.Exists(_mark) && File.ReadAllText(_mark) != _boot) throw new LiteException(0, "power cut");
        // Streams of our own: LiteDB then does not flush page by page on the disk that the journal needs.
        _database = new LiteDatabase(new LiteEngine(new EngineSettings {
            DataStream = _data, LogStream = _pages, TempStream = new MemoryStream(), Collation = Collation.Binary,
        })) { CheckpointSize = 0, UtcDate = true, Timeout = TimeSpan.FromSeconds(5) };
        foreach (var (name, _) in WithEmail) {
            _database.GetCollection(name).EnsureIndex("email", "$.email");
            _database.GetCollection(name).EnsureIndex("sort_key", "$.sort_key");
        }
        var meta = _database.GetCollection("meta").FindById("journal");
        if (meta is not null && meta["schema"] != Schema) throw new LiteException(0, "written by another version");
        (Opened, _applied) = (Opened + 1, meta is null ? 0 : meta["position"].AsInt64);
    }
    /// <summary>Renames the file, so that the journal builds it anew.</summary>
    public void MoveAside(string why) {
        string suffix = $".{clock.GetUtcNow():yyyyMMdd'T'HHmmss}.{Guid.NewGuid():N}.aside";
        foreach (string each in (string[])[path, _logPath]) if (File.Exists(each)) File.Move(each, each + suffix);
        File.Delete(_mark);
        log.MovedAside(path, why);
    }
    /// <summary>Lets go of the file as it is. Tells whether it was open.</summary>
    public bool Abandon() {
        lock (_gate) {
            bool wasOpen = _database is not null;
            try { _database?.Dispose(); } catch (Exception e) { log.FollowerFailed(e.GetType().Name, e.Message); }
            _data?.Dispose();
            _pages?.Dispose();
            (_database, _data, _pages) = (null, null, null);
            return wasOpen;
        }
    }
    /// <summary>A clean stop: everything in the file and on disk, then the mark goes.</summary>
    public void Close() {
        lock (_gate) {
            if (_database is null) return;
            Checkpoint(1);
            _pages!.Flush(flushToDisk: true);
            _data!.Flush(flushToDisk: true);
            Abandon();
            File.Delete(_mark);
        }
    }
    /// <summary>Moves LiteDB's log into the file once it has so many bytes.</summary>
    public void Checkpoint(long bytes) { lock (_gate) if (Database is var database && _pages!.Length >= bytes) database.Checkpoint(); }
    /// <summary>Writes what a run of entries adds, and the position after it, in one transaction. Nothing is counted twice.</summary>
    /// <exception cref="LiteException">Nothing was written.</exception>
    public void Write(List<(long At, Entry? Entry, bool Untaken)> entries, long end, Func<string, (string Address, Known Known)?> known) {
        lock (_gate) {
            if (_boot is not null) { // before the first write, and not at a start on a full disk
                File.WriteAllText(_mark + ".part", _boot);
                using (var part = Disk.Open(_mark + ".part", FileShare.ReadWrite)) part.Flush(flushToDisk: true); // on disk before any page is
                File.Move(_mark + ".part", _mark, overwrite: true); // half of it would be another boot's
                Disk.FlushFolder(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!);
            }
            _boot = null;
            if (!Database.BeginTrans()) throw new LiteException(0, "a transaction is open already");
            var counts = new Dictionary<(string, string), long>();
            foreach (var (_, entry, untaken) in entries)
                foreach (var feedback in untaken ? [] : entry?.Event.Feedback ?? []) Insert(feedback, entry!.Message!.TopicArn, counts);
            foreach (var ((collection, counter), added) in counts) Change(collection, counter, count => count["n"] = count["n"].AsInt64 + added);
            foreach (string email in entries.SelectMany(each => each.Entry?.Addresses ?? []).Distinct())
                if (known(email) is var (address, now)) Change("suppressions", address, stored =>
                    (stored["reason"], stored["since"], stored["known"]) = (now.Reason, now.Since.ToUnixTimeMilliseconds(),
                        JsonSerializer.Serialize(now, SnsJson.Lines.Known)));
            WriteChanges(); // after the suppressions were read, so that none is stored without its change
            foreach (var (at, entry, untaken) in entries) WriteOthers(at, untaken ? null : entry);
            foreach (var topic in entries.Where(each => !each.Untaken && each.Entry?.Message is not null).GroupBy(each => each.Entry!.Message!.TopicArn))
                Change("subscriptions", topic.Key, seen => (seen["last_at"], seen["signature_version"]) =
                    (topic.Last().Entry!.At.ToUnixTimeMilliseconds(), topic.Last().Entry!.Message!.SignatureVersion));
            Change("meta", "journal", meta => (meta["schema"], meta["position"]) = (Schema, end));
            if (!Database.Commit()) throw new LiteException(0, "the transaction was lost");
            _applied = end;
        }
    }
    partial void WriteChanges(); // extras/Hook.cs

    void Insert(Feedback feedback, string topicArn, Dictionary<(string, string), long> counts) {
        var (name, time) = CollectionOf(feedback.Kind);
        var id = feedback.PrimaryKey;
        if (Database.GetCollection(name).FindById(id) is { } before) {
            if (before["snsMessageId"].AsString != feedback.SnsMessageId && before["tags"].IsString == feedback.Tags is null)
                Change("subscriptions", topicArn, seen => seen["doubled_at"] = feedback.At.ToUnixTimeMilliseconds());
            return;
        }
        var document = new BsonDocument { ["_id"] = id, ["email"] = feedback.Address, ["sort_key"] = feedback.SortKey };
        document[time] = feedback.At.ToUnixTimeMilliseconds();
        if (feedback.Possible) document["possible"] = true;
        foreach (var (member, value) in feedback.Texts) if (value is not null) document[member] = value;
        if (feedback.Tags is not null) document["tags"] = feedback.Tags;
        if (time != "at" && feedback.Mail is not null) document["mail"] = feedback.Mail;
        Database.GetCollection(name).Insert(document);
        CollectionsMarshal.GetValueRefOrAddDefault(counts, ("daily", Count.KeyOf(feedback, Count.Day)), out _)++;
        CollectionsMarshal.GetValueRefOrAddDefault(counts, ("hourly", Count.KeyOf(feedback, Count.Hour)), out _)++;
    }

    void WriteOthers(long at, Entry? entry) {
        if (entry is { Message: null, Refused: null }) return;
        if (entry?.Message is not { } message || entry.Event.Unread is not null)
            Change("unread", entry?.Message?.MessageId ?? $"journal/{at >> 32}/{(uint)at}", unread =>
                (unread["at"], unread["topic_arn"], unread["why"], unread["message"]) = (entry?.At.ToUnixTimeMilliseconds(),
                    entry?.Message?.TopicArn, entry?.Event.Unread ?? entry?.Refused?.Why ?? "no entry that can be stored",
                    entry?.Message?.Message ?? entry?.Refused?.Body));
        else if (message.Type != Envelope.Notification || entry.Event.Validates)
            Change("subscriptions", message.TopicArn, subscription => subscription[message.Type == Envelope.Notification ? "validated_at"
                : message.Type == Envelope.SubscriptionConfirmation ? "confirmed_at" : "unsubscribed_at"] = entry.At.ToUnixTimeMilliseconds());
    }
    // Reads, changes and writes back one document, which need not be there yet.
    void Change(string collection, string id, Action<BsonDocument> change) {
        var document = Database.GetCollection(collection).FindById(id) ?? new BsonDocument { ["_id"] = id };
        change(document);
        Database.GetCollection(collection).Upsert(document);
    }
    /// <summary>What was known of every address when the file was last written, read a few thousand at a time.</summary>
    public IEnumerable<(string Address, Known Known)> Suppressions() {
        for (string after = ""; ;) {
            List<BsonDocument> some;
            lock (_gate) some = Database.GetCollection("suppressions").Query().Where("_id > @0", after).OrderBy("_id").Limit(4096).ToList();
            foreach (var each in some)
                yield return (after = each["_id"].AsString, JsonSerializer.Deserialize(each["known"].AsString, SnsJson.Default.Known)!);
            if (some.Count < 4096) yield break;
        }
    }
    /// <summary>The roll-ups from a key on.</summary>
    public List<Count> Counts(string collection, string from) => Guarded(() => Database.GetCollection(collection)
        .Find(BsonExpression.Create("_id BETWEEN @0 AND @1", from, "~"))
        .Select(count => Count.Of(count["_id"].AsString, count["n"].AsInt64)).ToList());
    /// <summary>How many messages lie unread, and what each topic was seen to do.</summary>
    public (long Unread, List<TopicState> Topics) State() => Guarded(() => (Database.GetCollection("unread").LongCount(),
        Database.GetCollection("subscriptions").FindAll().Select(topic => {
            DateTimeOffset? At(string name) => topic[name].IsInt64 ? DateTimeOffset.FromUnixTimeMilliseconds(topic[name].AsInt64) : null;
            return new TopicState(topic["_id"].AsString, At("confirmed_at"), At("unsubscribed_at"), At("validated_at"), At("last_at"),
                topic["signature_version"].AsString, At("doubled_at"));
        }).ToList()));
    /// <summary>The events of each collection, newest first, read a few at a time so that nobody waits long for the gate.</summary>
    public IEnumerable<IEnumerable<(Guid Key, Feedback Feedback)>> Newest(EventQuery query) =>
        (query.Kind is null ? WithEmail : [CollectionOf(query.Kind)]).Select(collection => Newest(collection.Name, collection.Time, query));
    static (string Name, string Time) CollectionOf(string kind) => WithEmail[kind switch { SesEvent.Bounce => 0, SesEvent.Complaint => 1, _ => 2 }];

    IEnumerable<(Guid Key, Feedback Feedback)> Newest(string name, string time, EventQuery query) {
        var highest = query.Highest;
        for (int count = query.Address is null ? 64 : 128; ;) { // few: what is held meanwhile grows old, and old garbage stops everybody
            var events = Guarded(() => Read(name, query, highest, count));
            foreach (var each in events) if (each["sort_key"].AsGuid is var key && key < highest) yield return (key, FeedbackOf(each, time));
            if (events.Count < count) yield break;
            highest = events[^1]["sort_key"].AsGuid;
        }
    }

    List<BsonDocument> Read(string name, EventQuery query, Guid highest, int count) {
        var between = BsonExpression.Create("$.sort_key BETWEEN @0 AND @1", query.Lowest, highest);
        if (query.Address is null) return Database.GetCollection(name).Query().Where(between).OrderByDescending("$.sort_key").Limit(count).ToList();
        var newest = new PriorityQueue<BsonDocument, Guid>();
        foreach (var document in Database.GetCollection(name).Find(BsonExpression.Create("$.email = @0", query.Address))) {
            if (document["sort_key"].AsGuid is var key && key >= query.Lowest && key < highest) newest.Enqueue(document, key);
            if (newest.Count > count) newest.Dequeue();
        }
        return [.. newest.UnorderedItems.OrderByDescending(item => item.Priority).Select(item => item.Element)];
    }

    static Feedback FeedbackOf(BsonDocument document, string time) {
        string? Text(string name) => document[name].IsString ? document[name].AsString : null;
        return new(Text("kind")!, Text("email")!, Text("recipient")!, DateTimeOffset.FromUnixTimeMilliseconds(document[time].AsInt64), Text("type"),
            Text("subtype"), Text("status"), Text("detail"), document["possible"].IsBoolean, Text("mailId"), Text("subject"), Text("source"),
            Text("configurationSet"), Text("tags"), Text("mail"), Text("snsMessageId")!);
    }
    // LiteDB's own exceptions can be anything: the file is damaged then, and built anew.
    T Guarded<T>(Func<T> read) {
        lock (_gate) {
            if (_database is null) throw new Unavailable();
            try { return read(); } catch (Exception e) {
                log.FollowerFailed(e.GetType().Name, e.Message);
                Abandon();
                if (e is not (OutOfMemoryException or IOException { HResult: not 5 })) MoveAside("damaged"); // 5: EIO; another, as a full disk, mends itself
                throw new Unavailable();
            }
        }
    }
}

// ---- 9. Plumbing ------------------------------------------------------------------------------------------------

/// <summary>The answer to a look-up.</summary>
sealed record Answer(string Address, bool Suppressed, string? Reason, DateTime? Since, string Because, string? Event, string? Note, string? Lift) {
    public Answer(string address, Known known) : this(address, known.Suppressed, known.Reason,
        known.Suppressed ? known.Since.UtcDateTime : null, known.Because ?? (known.Suppressed ? "It was suppressed by hand."
            : known.LiftedAt == default ? "Nothing is known against it."
            : $"It was lifted on {known.LiftedAt:yyyy-MM-dd}, and nothing has come since."), known.Event, known.Note,
        known.Suppressed ? "curl -X DELETE localhost:8081/suppressed/" + Uri.EscapeDataString(address) : null) { }
}

/// <summary>The body of PUT /suppressed/{address}, which may be empty.</summary>
sealed record SuppressBody(string? Reason = null, string? Note = null) {
    public const string Form = """The body may be empty or {"reason":"manual","note":"up to 1,000 characters"}.""";
    /// <summary>Null when there is one and it is wrong.</summary>
    public static async Task<SuppressBody?> ReadAsync(HttpRequest request) {
        if (request.ContentLength > 16 << 10) return null;
        try {
            string text = await new StreamReader(request.Body).ReadToEndAsync();
            var read = string.IsNullOrWhiteSpace(text) ? new() : JsonSerializer.Deserialize(text, ApiJson.Default.SuppressBody);
            return read is { Reason: null or global::Reason.Manual, Note: null or { Length: <= 1000 } } ? read : null;
        } catch (Exception e) when (e is JsonException or BadHttpRequestException) { return null; }
    }
}

/// <summary>RFC 9457 problem details, for everything but /sns.</summary>
static class Problem {
    public static ProblemHttpResult NoAddress => Of(400, "That is no e-mail address.");
    /// <summary>What broke, as an answer: 503 when the store cannot be read now. Once an answer has begun, it is broken off instead.</summary>
    public static async Task AnswerAsync(HttpContext context, RequestDelegate next) {
        try { await next(context); } catch (Unavailable) when (!context.Response.HasStarted) { await Later(context).ExecuteAsync(context); }
    }
    public static ProblemHttpResult Of(int status, string why) => TypedResults.Problem(why, statusCode: status);
    public static ProblemHttpResult Later(HttpContext context, Commit commit = Commit.Kept) {
        context.Response.Headers.RetryAfter = "5";
        return Of(503, commit switch {
            Commit.Busy => "Too much is waiting.",
            Commit.Unwritable => "The journal cannot be written now.",
            _ => "What is stored cannot be read yet.",
        });
    }
}

/// <summary>As SNS spells: the envelope, and the journal's lines.</summary>
[JsonSourceGenerationOptions(AllowDuplicateProperties = false, RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(Envelope)), JsonSerializable(typeof(Entry)), JsonSerializable(typeof(Known))]
sealed partial class SnsJson : JsonSerializerContext {
    public static SnsJson Lines { get; } = new(new() { Encoder = Receiver.Relaxed, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault });
}

/// <summary>As our own routes spell.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, AllowDuplicateProperties = false,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow)]
[JsonSerializable(typeof(Answer)), JsonSerializable(typeof(SuppressBody)), JsonSerializable(typeof(ProblemDetails))]
sealed partial class ApiJson : JsonSerializerContext {
    public const int LongestPage = 4 << 20; // of events: what SES passes on of a diagnostic or a tag may be long
    /// <summary>Where JSON is written that no type stands for.</summary>
    public static (ArrayBufferWriter<byte> Body, Utf8JsonWriter Json) Write() =>
        new ArrayBufferWriter<byte>() is var body ? (body, new(body, new() { Encoder = Receiver.Relaxed })) : default;
}

static class Iso8601 {
    /// <summary>Lenient, for SES also prints "2018-10-08T14:05:45 +0000".</summary>
    public static DateTimeOffset? Read(string? text) =>
        DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var at) ? at.ToUniversalTime() : null;
}

/// <summary>JSON of which nothing is promised: what is not there, or is something else, is absent.</summary>
static class JsonElements {
    public static JsonElement Member(this JsonElement json, string name) =>
        json.ValueKind == JsonValueKind.Object && json.TryGetProperty(name, out var value) ? value : default;
    public static IReadOnlyList<JsonElement> Elements(this JsonElement json) =>
        json.ValueKind == JsonValueKind.Array ? [.. json.EnumerateArray()] : [];
    public static string? Text(this JsonElement json, string? name) => name is null ? null : json.Member(name).AsText();
    public static string? Raw(this JsonElement json) => json.ValueKind == JsonValueKind.Undefined ? null : json.GetRawText();
    public static string? AsText(this JsonElement json) => json.ValueKind switch {
        JsonValueKind.String => json.GetString(),
        JsonValueKind.Number => json.GetRawText(),
        _ => null,
    };
}

/// <summary>Everything that is logged: ids, verdicts and counts; never an address, a body, a token or a subscribe URL.</summary>
sealed partial class Log(ILogger<Log> logger) {
    [LoggerMessage(1, Warning, "Refused with {Status}, {Why}: {Count} so far")] public partial void Refused(int status, string why, long count);
    [LoggerMessage(2, Warning, "{What} cannot be had from SNS: {Why}")] public partial void Unavailable(string what, string why);
    [LoggerMessage(3, Warning, "Signing certificate {Name} cannot be kept in Sns:CertificateDirectory: {Why}")] public partial void NotKept(string name, string why);
    [LoggerMessage(4, Warning, "UNSUBSCRIBED: {Topic} is silent now; subscribe it again")] public partial void Unsubscribed(string topic);
    [LoggerMessage(5, Warning, "{Bytes} bytes that were never acknowledged; they are cut off")] public partial void TornTail(long bytes);
    [LoggerMessage(6, Error, "The journal cannot be written ({HResult}): 503 until it can")] public partial void Unwritable(int hResult);
    [LoggerMessage(7, Error, "The follower failed, goes on: {Type}: {Why}")] public partial void FollowerFailed(string type, string why);
    [LoggerMessage(8, Warning, "{Path} is moved aside ({Why}) and built anew")] public partial void MovedAside(string path, string why);
    [LoggerMessage(9, Information, "{What}: segment {Segment} of {Last}, at {MiB} MiB")] public partial void Working(string what, long segment, long last, long mib);
}
