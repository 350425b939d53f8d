using System.Text.Json.Nodes;

/// <summary>Messages that AWS signed, with its certificates of the time, and certificate URLs as attackers write them:
/// GENUINE_MESSAGES names the folder that holds them.</summary>
public sealed class RecordedTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;
    const string Lambda = "11-notif-v2-lambdakeys-nullsubject-2022-php", Short = "40-notif-v1-rsa1024-2012-elixir";
    static readonly string? s_folder = Environment.GetEnvironmentVariable("GENUINE_MESSAGES");

    static string Recorded(params ReadOnlySpan<string> path) {
        Assert.SkipUnless(s_folder is not null, "recorded AWS messages are not part of the repository");
        return Path.Combine([s_folder!, .. path]);
    }

    static Task<string> PayloadAsync(string folder) =>
        File.ReadAllTextAsync(Path.Combine(folder, "payload.json"), Cancellation);

    /// <summary>A receiver for the topic that the payload names, with every recorded certificate at hand.</summary>
    static async Task<ReceiverApp> StartForAsync(string payload) {
        var app = await ReceiverApp.StartAsync(["Sns:TopicArns:0=" + JsonNode.Parse(payload)!["TopicArn"]]);
        Directory.CreateDirectory(Path.Combine(app.Folder, "certificates"));
        foreach (string pem in Directory.GetFiles(Recorded("sns"), "*.pem", SearchOption.AllDirectories))
            File.Copy(pem, Path.Combine(app.Folder, "certificates", Path.GetFileName(pem)), overwrite: true);
        return app;
    }

    [Fact]
    public async Task A_message_that_AWS_signed_is_accepted() {
        string[] refused = [Recorded("sns", Lambda), Recorded("sns", Short)];
        foreach (string folder in Directory.GetDirectories(Recorded("sns")).Except(refused)) {
            string payload = await PayloadAsync(folder);
            await using var app = await StartForAsync(payload);
            Assert.Equal((folder, 200), (folder, (await app.PostAsync(payload)).Status));
            Assert.DoesNotContain(app.Sns.Requests, url => url.EndsWith(".pem", StringComparison.Ordinal));
        }
    }

    [Theory]
    [InlineData(Lambda, 400)]
    [InlineData(Short, 403)]
    public async Task A_message_in_Lambdas_spelling_or_of_a_short_key_is_refused(string folder, int status) {
        string payload = await PayloadAsync(Recorded("sns", folder));
        await using var app = await StartForAsync(payload);
        Assert.Equal(status, (await app.PostAsync(payload)).Status);
    }

    [Fact]
    public async Task A_message_that_was_edited_after_AWS_signed_it_is_refused() {
        foreach (string file in Directory.GetFiles(Recorded("negative"), "*.json")) {
            string payload = await File.ReadAllTextAsync(file, Cancellation);
            await using var app = await StartForAsync(payload);
            Assert.Equal((file, (403, "the signature does not fit")), (file, await app.PostAsync(payload)));
            Assert.Empty(app.Sns.Requests);
        }
    }

    [Fact]
    public async Task A_certificate_URL_is_judged_as_a_hardened_verifier_would() {
        Topic[] topics =
        [
            Topic.Parse("arn:aws:sns:us-east-1:123456789012:t")!,
            Topic.Parse("arn:aws-cn:sns:cn-north-1:123456789012:t")!,
            Topic.Parse("arn:aws-us-gov:sns:us-gov-west-1:123456789012:t")!,
        ];
        var lines = from line in await File.ReadAllLinesAsync(Recorded("negative-cert-urls.txt"), Cancellation)
                    where line.Length > 0 && line[0] != '#'
                    let columns = line.Split('\t')
                    where columns[0] != "either"
                    let url = columns[4].Replace("<SP>", " ").Replace("<LF>", "\n").Replace("<TAB>", "\t")
                        .Replace("<NUL>", "\0").Replace("<EMPTY>", "")
                    select (Expected: columns[0], Url: url);
        Assert.True(lines.Count() > 80);
        Assert.All(lines, line => Assert.Equal(line.Expected,
            topics.Any(topic => topic.CertificateName(line.Url) is not null) ? "accept" : "reject"));
    }
}
