using System.Diagnostics;

/// <summary>A wrong setting stops the start in one line that names it: seen on the program itself.</summary>
public sealed class StartTests {
    const string Arn = "Sns:TopicArns:0=" + FakeSns.TopicArn;

    /// <summary>Runs the program in a folder of its own, until it ends.</summary>
    static Task<(int ExitCode, string Error)> RunAsync(params string[] settings) => RunCommandAsync([], settings);
    static async Task<(int ExitCode, string Error)> RunCommandAsync(string[] command, string[] settings, string appsettings = "{}") {
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        File.WriteAllText(Path.Combine(folder, "appsettings.json"), appsettings);
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "FeedbackReceiver.dll"), .. command,
            "--Kestrel:Endpoints:Webhook:Url=http://127.0.0.1:0", "--Kestrel:Endpoints:Private:Url=http://127.0.0.1:0",
            .. settings.Select(setting => "--" + setting)]) {
            WorkingDirectory = folder,
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        };
        using var program = Process.Start(start)!;
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        try {
            string error = await program.StandardError.ReadToEndAsync(patience.Token);
            await program.WaitForExitAsync(patience.Token);
            return (program.ExitCode, error);
        } finally { program.Kill(); }
    }

    [Theory]
    [InlineData("Sns:TopicArns", "Sns:TopicArns:0=")]
    [InlineData("Sns:TopicArns", "Sns:TopicArns:0=email-feedback")]
    [InlineData("Sns:TopicArns", "Sns:TopicArns:0=arn:aws:sns:us-east-1:123456789012:*")]
    [InlineData("Sns:TopicArns", "Sns:TopicArns:1=arn:aws:sns:us-east-1:123456789012:feedback.fifo")]
    [InlineData("Sns:MinimumSignatureVersion", "Sns:MinimumSignatureVersion=0")]
    [InlineData("Sns:MinimumSignatureVersion", "Sns:MinimumSignatureVersion=3")]
    [InlineData("Sns:MinimumSignatureVersion", "Sns:MinimumSignatureVersion=two")]
    [InlineData("Sns:CertificateDirectory", "Sns:CertificateDirectory=")]
    [InlineData("Journal:Directory", "Journal:Directory=")]
    [InlineData("ConnectionStrings:Feedback", "ConnectionStrings:Feedback=data/feedback.db")]
    [InlineData("ConnectionStrings:Feedback", "ConnectionStrings:Feedback=Filename=")]
    [InlineData("denied", "ConnectionStrings:Feedback=Filename=.")]
    [InlineData("Kestrel:Endpoints:Webhook:Url", "Kestrel:Endpoints:Webhook:Url=https://127.0.0.1:0")]
    [InlineData("'Foo' is not supported", "Logging:LogLevel:Default=Foo")]
    [InlineData("Api:Key", "Api:Key=fifteen letters")]
    [InlineData("Suppression:SoftBounceLimit", "Suppression:SoftBounceLimit=-1")]
    [InlineData("Suppression:SoftBounceLimit", "Suppression:SoftBounceLimit=101")]
    [InlineData("Suppression:SoftBounceLimit", "Suppression:SoftBounceLimit=many")]
    [InlineData("Kestrel:Endpoints:Private:Url", "Kestrel:Endpoints:Private:Url=http://0.0.0.0:0")]
    [InlineData("Kestrel:Endpoints:Private:Url", "Kestrel:Endpoints:Private:Url=http://[::]:0")]
    [InlineData("Kestrel:Endpoints", "Kestrel:Endpoints:Webhook:Url=http://192.0.2.1:0")] // no address of this machine
    [InlineData("Kestrel:Endpoints:Private:Url", "Kestrel:Endpoints:Private:Url=http://*:0")]
    [InlineData("Kestrel:Endpoints:Private:Url", "Kestrel:Endpoints:Private:Url=http://feedback.example.com:0")]
    [InlineData("Kestrel:Endpoints:Private:Url", "Kestrel:Endpoints:Private:Url=localhost")]
    [InlineData("Kestrel:Endpoints:Private:Url", "Kestrel:Endpoints:Private:Url=")]
    public async Task A_wrong_setting_stops_the_start_in_one_line_that_names_it(string name, string setting) {
        var (exitCode, error) = await RunAsync(Arn, setting);
        Assert.Equal(1, exitCode);
        Assert.Matches($"^FeedbackReceiver: .*{name}.*\n$", error);
    }

    [Fact]
    public async Task Settings_that_are_no_JSON_are_refused_in_one_line_that_names_the_file() {
        var (exitCode, error) = await RunCommandAsync([], [Arn], appsettings: "{");
        Assert.Equal(1, exitCode);
        Assert.Matches("^FeedbackReceiver: .*appsettings.json.*\n$", error);
    }

    [Fact]
    public async Task The_program_without_appsettings_json_beside_it_logs_no_address() {
        string program = Directory.CreateTempSubdirectory("program-").FullName, folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        foreach (string file in Directory.GetFiles(AppContext.BaseDirectory).Where(file => Path.GetExtension(file) is ".dll" or ".json" or ".so"))
            if (!Path.GetFileName(file).StartsWith("appsettings", StringComparison.Ordinal)) File.Copy(file, Path.Combine(program, Path.GetFileName(file)));
        using var receiver = await OwnProcess.StartFromAsync(program, folder);
        using (var suppressed = await receiver.Private.PutAsync("/suppressed/jane@example.com", null, TestContext.Current.CancellationToken))
            Assert.Equal(201, (int)suppressed.StatusCode);
        using (var found = await receiver.Private.GetAsync("/suppressed/jane@example.com", TestContext.Current.CancellationToken))
            Assert.Equal(200, (int)found.StatusCode);
        Assert.False(await receiver.PostAsync("no JSON"));
        await receiver.StopAsync();
        Assert.DoesNotContain("jane", receiver.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("AspNetCore", receiver.Output, StringComparison.Ordinal);
        Assert.Contains("Refused with 400", receiver.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_command_that_there_is_not_is_refused() {
        var (exitCode, error) = await RunCommandAsync(["reubild"], [Arn]);
        Assert.Equal((1, "FeedbackReceiver: no command is called 'reubild'\n"), (exitCode, error));
    }

    [Fact]
    public async Task Without_a_topic_the_start_is_refused() {
        var (exitCode, error) = await RunAsync();
        Assert.Equal(1, exitCode);
        Assert.Matches("^FeedbackReceiver: .*Sns:TopicArns.*\n$", error);
    }
}
