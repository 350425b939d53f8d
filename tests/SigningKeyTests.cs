using System.Net;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

/// <summary>What a signing certificate must be, and the client that fetches it over a real connection.</summary>
public sealed class SigningKeyTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;
    /// <summary>The same key in a certificate of another validity.</summary>
    static string Valid(FakeSns sns, string from, string until) {
        using var now = X509Certificate2.CreateFromPem(sns.Pem);
        using var issuer = RSA.Create(2048);
        var request = new CertificateRequest(now.SubjectName, now.PublicKey, HashAlgorithmName.SHA256);
        var signer = X509SignatureGenerator.CreateForRSA(issuer, RSASignaturePadding.Pkcs1);
        using var then = request.Create(
            now.SubjectName, signer, DateTimeOffset.Parse(from, null), DateTimeOffset.Parse(until, null), [1]);
        return then.ExportCertificatePem();
    }

    sealed class WithoutSha1 : RSA {
        public override RSAParameters ExportParameters(bool includePrivateParameters) => default;
        public override void ImportParameters(RSAParameters parameters) { }
        public override bool VerifyHash(ReadOnlySpan<byte> hash, ReadOnlySpan<byte> signature, HashAlgorithmName hashAlgorithm, RSASignaturePadding padding) =>
            throw new CryptographicException("invalid digest");
    }
    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_rsa")] static extern ref ThreadLocal<RSA> RsaOf(SigningCertificate certificate);

    [Fact]
    public void A_host_that_forbids_SHA_1_calls_nothing_a_forgery_and_SNS_comes_again() {
        var sns = new FakeSns();
        Assert.Null(Envelope.Read(new(System.Text.Encoding.UTF8.GetBytes(sns.Signed("hello", "1"))), out var envelope));
        var certificate = SigningCertificate.Parse(sns.Pem)!;
        var at = new DateTimeOffset(2026, 11, 24, 8, 0, 0, TimeSpan.Zero);
        Assert.Null(certificate.Verify(envelope!, 1, at));
        RsaOf(certificate) = new(() => new WithoutSha1());
        Assert.Same(Verdict.Sha1Forbidden, certificate.Verify(envelope!, 1, at));
        Assert.Equal(503, Verdict.Sha1Forbidden.Status);
    }

    static async Task<int> PostDatedAsync(ReceiverApp app, string timestamp) {
        var envelope = app.Sns.Notification("hello");
        envelope["Timestamp"] = timestamp;
        return (await app.PostAsync(app.Sns.Sign(envelope))).Status;
    }

    [Theory]
    [InlineData("2021-05-31T23:59:59.999Z", 403)]
    [InlineData("2021-06-01T00:00:00.000Z", 200)]
    [InlineData("2021-12-24T18:00:00.000Z", 200)]
    [InlineData("2022-05-31T23:59:59.999Z", 200)]
    [InlineData("2022-06-01T00:00:00.000Z", 403)]
    [InlineData("2026-11-24T08:00:00.000Z", 403)]
    public async Task A_certificate_must_cover_the_Timestamp_and_may_be_expired_now(string timestamp, int status) {
        await using var app = await ReceiverApp.StartAsync();
        app.Sns.Pem = Valid(app.Sns, from: "2021-06-01T00:00:00Z", until: "2022-05-31T23:59:59Z");
        Assert.Equal(status, await PostDatedAsync(app, timestamp));
    }

    [Fact]
    public async Task An_RSA_key_of_1024_bits_is_refused() {
        await using var app = await ReceiverApp.StartAsync(sns: new FakeSns(keySize: 1024));
        Assert.Equal(403, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }

    [Fact]
    public async Task An_RSA_key_of_4096_bits_is_accepted() {
        await using var app = await ReceiverApp.StartAsync(sns: new FakeSns(keySize: 4096));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }

    [Fact]
    public async Task A_key_that_is_not_RSA_is_refused() {
        await using var app = await ReceiverApp.StartAsync();
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var certificate = new CertificateRequest("CN=sns.fake.test", key, HashAlgorithmName.SHA256)
            .CreateSelfSigned(DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch.AddYears(99));
        app.Sns.Pem = certificate.ExportCertificatePem();
        Assert.Equal(403, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }

    [Fact]
    public async Task A_certificate_of_another_key_makes_nothing_genuine() {
        await using var app = await ReceiverApp.StartAsync();
        app.Sns.Pem = new FakeSns(keySize: 2048).Pem;
        Assert.Equal(403, (await app.PostAsync(app.Sns.Signed("hello"))).Status);
    }

    /// <summary>A real server on a free port; it counts what it is asked for.</summary>
    static async Task<(WebApplication Server, string Url)> ServeAsync(RequestDelegate answer) {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore().UseUrls("http://127.0.0.1:0");
        var server = builder.Build();
        server.Run(answer);
        await server.StartAsync(Cancellation);
        return (server, server.Urls.First());
    }

    [Fact]
    public async Task The_client_for_SNS_follows_no_redirect() {
        int asked = 0;
        var (server, url) = await ServeAsync(context => {
            asked++;
            context.Response.Redirect("/elsewhere");
            return Task.CompletedTask;
        });
        await using var _ = server;
        await using var receiver = Receiver.Build(["--Sns:TopicArns:0=" + FakeSns.TopicArn]);
        var client = receiver.Services.GetRequiredService<HttpClient>();
        using var response = await client.GetAsync(url + "/here", Cancellation);
        Assert.Equal((HttpStatusCode.Redirect, 1), (response.StatusCode, asked));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task The_client_for_SNS_reads_no_long_answer(bool tellsItsLength) {
        var (server, url) = await ServeAsync(async context => {
            if (tellsItsLength) context.Response.ContentLength = 10 << 20;
            for (int i = 0; i < 160 && !context.RequestAborted.IsCancellationRequested; i++)
                await context.Response.Body.WriteAsync(new byte[64 << 10], context.RequestAborted);
        });
        await using var _ = server;
        await using var receiver = Receiver.Build(["--Sns:TopicArns:0=" + FakeSns.TopicArn]);
        var client = receiver.Services.GetRequiredService<HttpClient>();
        await Assert.ThrowsAsync<HttpRequestException>(() => client.GetAsync(url, Cancellation));
    }

    [Fact]
    public async Task The_client_for_SNS_reads_a_certificate() {
        string pem = new FakeSns().Pem;
        var (server, url) = await ServeAsync(context => context.Response.WriteAsync(pem));
        await using var _ = server;
        await using var receiver = Receiver.Build(["--Sns:TopicArns:0=" + FakeSns.TopicArn]);
        var client = receiver.Services.GetRequiredService<HttpClient>();
        Assert.Equal(pem, await client.GetStringAsync(url, Cancellation));
    }
}
